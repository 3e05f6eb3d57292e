"""Trains a job into its run folder."""

from collections.abc import Callable
from typing import Any

import jax

from prompt_tuning.checkpoints.adapter_files import save_adapter
from prompt_tuning.checkpoints.prompt_files import PromptMetadata
from prompt_tuning.parallel.accelerators import accelerator_of
from prompt_tuning.parallel.mesh import replicated, shard_batch
from prompt_tuning.parallel.processes import vote_over
from prompt_tuning.recipes.job import Job
from prompt_tuning.recipes.prompts import inject_folded
from prompt_tuning.recipes.scoring import scorer
from prompt_tuning.recipes.teachers import teachers
from prompt_tuning.training import loop
from prompt_tuning.training.distillation import Distillation, distillation_loss_fn
from prompt_tuning.training.monitoring import Monitoring
from prompt_tuning.training.run import TrainResult
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.startup import Startup
from prompt_tuning.training.step import LossFn, prompt_loss_fn


def train(
    job: Job,
    folder: RunFolder,
    *,
    startup: Startup | None = None,
    profile_steps: int = 0,
) -> TrainResult:
    """Trains; the best prompt, the metrics and the summary are written to the folder."""
    base, method = job.base, job.method
    accelerator = accelerator_of(jax.devices()[0].device_kind)
    score = scorer(base, job.data, job.prediction, job.development_splits)
    return loop.train(
        job.training.options,
        folder=folder,
        loss_fn=loss_of(job),
        optimizer=job.training.optimizer,
        trained=job.trained,
        frozen=base.params,
        batches=lambda step: shard_batch(job.stream.batch(step), base.mesh),
        evaluate=lambda trained: score(inject_folded(method, trained)),
        save_best=saver(job, folder),
        facts=facts(job),
        monitoring=Monitoring(
            startup=startup,
            peak_flops=accelerator.flops * jax.device_count() if accelerator else None,
            profile_steps=profile_steps,
        ),
        replicated=replicated(base.mesh) if base.mesh.size > 1 else None,
        layout=lambda state: base.layout.trained_shardings(state, base.params),
        vote=vote_over(base.mesh),
    )


def loss_of(job: Job) -> LossFn:
    """Returns the loss of the method's injection, distilled from teachers if there are any."""
    model, loss = job.base.model, job.training.loss
    if job.training.teachers is None:
        return prompt_loss_fn(model, job.method, loss)

    distillation = Distillation(
        teachers=teachers(job.base, job.data, job.training.teachers),
        weight=job.training.distillation,
    )
    return distillation_loss_fn(model, job.method, loss, distillation)


def facts(job: Job) -> dict[str, Any]:
    """What the summary of a run says besides its numbers."""
    return {
        "task": job.data.name,
        "model": job.base.config.name,
        "truncated_examples": job.truncated,
    }


def saver(job: Job, folder: RunFolder) -> Callable[[Any, int, float], None]:
    """Returns what writes the best numbers to the folder: (trained, step, score) -> None."""
    base = job.base

    def save_best(trained, step: int, best: float) -> None:
        metadata = PromptMetadata(
            model=base.config.name,
            task=job.data.name,
            step=step,
            metric=f"{job.prediction.split} score",
            score=best,
            seed=job.training.options.seed,
            vocabulary_hash=base.vocabulary.hash,
            target_sentinel=job.data.target_sentinel,
        )
        save_adapter(folder.path, job.method, trained, metadata)

    return save_best
