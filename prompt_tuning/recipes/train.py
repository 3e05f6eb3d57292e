"""Trains a job in its run folder, or several jobs together."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_tuning.checkpoints.adapters.adapter_files import Adapter, best_file, save_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import batch_injections
from prompt_tuning.parallel.accelerators import accelerator_of
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.job import Job
from prompt_tuning.recipes.prompts import folded
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.training import loop
from prompt_tuning.training.distillation import Distillation, distillation_loss_fn
from prompt_tuning.training.halving import Halving
from prompt_tuning.training.monitoring import Monitoring
from prompt_tuning.training.run import Evaluation, Member, TrainResult
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.side_by_side import program_size, program_sizes
from prompt_tuning.training.startup import Startup
from prompt_tuning.training.step import InjectionLossFn, MethodLoss, injection_loss_fn


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberJob:
    """A job and its run folder.

    Attributes:
      job: the run.
      folder: its own run folder.
      name: unique among the jobs that train together; "" for a single job.
      facts: additional fields of its summary.
    """

    job: Job
    folder: RunFolder
    name: str = ""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def train_job(
    job: Job, folder: RunFolder, *, startup: Startup | None = None, profile_steps: int = 0
) -> TrainResult:
    """Trains a job and writes the best prompt, the metrics and the summary to the folder."""
    one = MemberJob(job=job, folder=folder)
    return train_jobs([one], startup=startup, profile_steps=profile_steps)[0]


def train_jobs(
    jobs: Sequence[MemberJob],
    *,
    concurrency: int = 1,
    side_by_side: bool = False,
    halving: Halving | None = None,
    startup: Startup | None = None,
    profile_steps: int = 0,
    profile_folder: FilePath | None = None,
) -> list[TrainResult]:
    """Trains jobs that share their base, loss and teachers, each in its own folder.

    Args:
      jobs: the runs.
      concurrency: number of jobs that train at a time.
      side_by_side: whether one program makes the steps of all jobs, instead of taking turns.
      halving: drops the worst jobs during training.
      startup: reported after the first step.
      profile_steps: number of steps to profile.
      profile_folder: where to write the profile; None is the first job's folder.

    Returns:
      The results, in the order of the jobs.

    Raises:
      UserError: as `training.loop.train_loop`; or the teachers don't suit the tasks.
    """
    base = jobs[0].job.base
    accelerator = accelerator_of(jax.devices()[0].device_kind)
    losses = [_injection_loss(each.job) for each in jobs]
    results = loop.train_loop(
        [
            Member(
                name=each.name,
                folder=each.folder,
                options=each.job.training.options,
                # All members use the first loss, so that they can share a program.
                loss_fn=MethodLoss(each.job.method, losses[0]),
                optimizer=each.job.training.optimizer,
                trained=each.job.trained,
                batches=each.job.batch,
                pad_id=base.config.pad_id,
                save_best=_saver(each.job, each.folder),
                facts={
                    "task": each.job.data.name,
                    "model": base.config.name,
                    "truncated_examples": each.job.truncated,
                    **each.facts,
                },
            )
            for each in jobs
        ],
        frozen=base.params,
        evaluate=_evaluator(jobs, concurrency) if jobs[0].job.evaluate else None,
        layout=base.layout,
        monitoring=Monitoring(
            startup=startup,
            peak_flops=accelerator.flops * jax.device_count() if accelerator else None,
            profile_steps=profile_steps,
            profile_folder=profile_folder,
        ),
        concurrency=concurrency,
        side_by_side=side_by_side,
        halving=halving,
    )
    for each, result in zip(jobs, results, strict=True):
        if each.job.evaluate is None and each.folder.is_written_here:
            _saver(each.job, each.folder)(result.trained, result.step, None)
        if each.job.report is not None:
            _report(each.job, each.job.report, each.folder)
    return results


def _report(job: Job, score: Callable[[Adapter], Evaluation], folder: RunFolder) -> None:
    """Adds the best step's score on `train.report_split` to the summary."""
    found = best_file(folder.path)
    if found is None:  # diverged before its first evaluation
        return
    evaluation = score(job.base.load_adapter(str(found)))
    if folder.is_written_here:
        report = {
            "split": job.training.report_split,
            "score": float(evaluation.score),
            "metrics": {name: float(value) for name, value in evaluation.metrics.items()},
        }
        summary = json.loads(folder.summary.read_text())
        folder.write_json("summary.json", {**summary, "report": report})


def _injection_loss(job: Job) -> InjectionLossFn:
    """Returns the loss function of injections, with distillation if there are teachers."""
    model, training = job.base.model, job.training
    if training.teachers is None:
        return injection_loss_fn(model, training.loss)
    distillation = Distillation(
        teachers=load_teachers(job.base, job.data, training.teachers), weight=training.distillation
    )
    return distillation_loss_fn(model, training.loss, distillation)


def load_teachers(base: Base, data: Data, paths: Sequence[str]) -> Injection:
    """Reads the prompts listed by `train.teachers`, one per task, into one batched injection.

    Raises:
      UserError: their number differs from the tasks', or one was trained on another task.
    """
    if len(paths) != len(data.tasks):
        raise UserError(
            f"train.teachers lists {len(paths)} prompts for the {len(data.tasks)} tasks of "
            f"{data.name}; give one for each of {', '.join(task.name for task in data.tasks)}."
        )
    found = []
    for task, path in zip(data.tasks, paths, strict=True):
        prompt, metadata = base.load_prompt(path)
        if metadata.task not in (None, task.name):
            raise UserError(
                f"The teacher of {task.name} is {path}, which was trained on {metadata.task}; list "
                "train.teachers in the order of the mixture's tasks."
            )
        if metadata.target_sentinel not in (None, data.target_sentinel):
            raise UserError(
                f"The teacher {path} was trained with "
                f"data.target_sentinel={metadata.target_sentinel} but the run uses "
                f"{data.target_sentinel}; set both to the same value."
            )
        found.append(Injection(encoder_prompt=jnp.asarray(prompt)[None]))
    return batch_injections(found)


def _evaluator(jobs: Sequence[MemberJob], concurrency: int) -> loop.Evaluate:
    """Returns a function that evaluates all due members, those with equal data in one pass."""
    sizes = program_sizes(min(concurrency, len(jobs)))
    by_name = {each.name: each.job for each in jobs}

    # Jobs that share their loaded data are scored by the first of them.
    scored_by: dict[str, str] = {}
    of_splits: dict[int, str] = {}
    for each in jobs:
        scored_by[each.name] = of_splits.setdefault(id(each.job.development_splits), each.name)

    def evaluate(due: Sequence[Member], trained: Sequence[Any]) -> list[Evaluation]:
        groups: dict[str, list[int]] = {}
        for index, member in enumerate(due):
            groups.setdefault(scored_by[member.name], []).append(index)
        found: dict[int, Evaluation] = {}
        for name, group in groups.items():
            adapters = [folded(by_name[due[i].name].method, trained[i]) for i in group]
            score = by_name[name].evaluate
            assert score is not None
            # Only a few sizes are compiled; pad to the next with copies of the first adapter.
            adapters += adapters[:1] * (program_size(len(adapters), sizes) - len(adapters))
            found.update(zip(group, score(adapters), strict=False))
        return [found[index] for index in range(len(due))]

    return evaluate


def _saver(job: Job, folder: RunFolder) -> Callable[[Any, int, float | None], None]:
    """Returns a function (trained, step, score) -> None that saves the adapter to the folder."""

    def save_best(trained, step: int, best: float | None) -> None:
        metadata = PromptMetadata.of_model(
            job.base.config,
            task=job.data.name,
            step=step,
            metric=None if best is None else f"{job.prediction.split} score",
            score=best,
            seed=job.training.options.seed,
            vocabulary_hash=job.base.vocabulary.hash,
            target_sentinel=job.data.target_sentinel,
        )
        save_adapter(folder.path, job.method, trained, metadata)

    return save_best
