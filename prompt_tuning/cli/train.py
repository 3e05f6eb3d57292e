"""`prompt-tuning train`: trains a prompt against a frozen model, into a run folder.

The same command on the same folder goes on with an interrupted run. With POPULATION, or `--tune`,
it trains many prompts at once (`population.py`).
"""

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning.cli.pretraining import PretrainingJob
    from prompt_tuning.cli.session import Job
    from prompt_tuning.training.run import TrainResult
    from prompt_tuning.training.run_folder import RunFolder
    from prompt_tuning.training.startup import Startup
    from prompt_tuning.training.step import LossFn


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("train", "Trains a prompt against a frozen model.")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the run that MODEL_DIR holds and start over",
    )
    parser.add_argument(
        "--profile",
        type=int,
        default=0,
        metavar="STEPS",
        help="record what the devices do in this many steps (docs/performance.md)",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="try the members of TUNE (learning rates, seeds), dropping the worst on the way",
    )
    args = parser.parse(argv)
    if args.profile < 0:
        raise UserError(f"--profile is {args.profile}; expected a number of steps, such as 10.")

    from prompt_tuning.checkpoints.adapter_files import BEST_PROMPT, best_file
    from prompt_tuning.cli import configurables, gin_config, session
    from prompt_tuning.cli.next_commands import infer_command
    from prompt_tuning.cli.run_block import aligned, run_facts, start_block
    from prompt_tuning.parallel.processes import is_first, joined
    from prompt_tuning.training import loop  # noqa: F401 - here, where imports are measured
    from prompt_tuning.training.screen import scores_text
    from prompt_tuning.training.startup import Startup

    startup = Startup(say=session.say_once)
    session.load_config(args)
    many = args.tune or gin_config.macro("POPULATION") is not None
    with joined(configurables.processes()):
        if many:
            train_many(args, startup)
            return
        job = session.prepare(part=startup.part)
        folder = open_folder(job, overwrite=args.overwrite)
        session.say_once(start_block(run_facts(job)))
        result = train(job, folder, startup=startup, profile_steps=args.profile)
        best = result.best
        told = is_first()
    if not told:
        return
    where = folder.path
    found = best_file(where)
    if result.stopped_early:
        patience = job.training.options.patience
        session.say(
            f"Stopped early, at step {result.step:,}: no better score in {patience} evaluations."
        )
    assert best.step is not None and best.score is not None
    rows = [
        ("Best", f"{scores_text(best.metrics, best.score)} at step {best.step:,}"),
        ("Run folder", f"{where}/ ({found and found.name}, summary.json, metrics.jsonl)"),
        ("Score it", f"prompt-tuning evaluate {where}"),
        ("Use it", infer_command(where, job.data.tasks)),
        ("Report", f"prompt-tuning report {where}"),
    ]
    if found and found.stem == BEST_PROMPT:
        rows.append(("Neighbors", f"prompt-tuning neighbors {where}"))
    session.say(aligned(rows))
    if best.step == 0:
        session.say(
            "Training has not improved the score: the best is that of step 0. "
            "Try another LEARNING_RATE or more steps."
        )


def train_many(args: argparse.Namespace, startup: "Startup") -> None:
    """Trains a population, in this process alone."""
    import jax

    from prompt_tuning.cli import population

    if jax.process_count() > 1:
        raise UserError(
            "POPULATION and --tune train in one process; start them on one host, or give each host "
            "members of its own."
        )
    if args.profile:
        raise UserError("--profile records a single run; leave out POPULATION and --tune.")
    population.train(args, startup)


def open_folder(job: "Job | PretrainingJob", *, overwrite: bool) -> "RunFolder":
    """Makes the run folder, or goes back to that of the same settings and the same contents."""
    from prompt_tuning.cli import gin_config, identity, session
    from prompt_tuning.parallel.processes import first_then_all
    from prompt_tuning.training.run_folder import RunFolder

    settings = {**identity.settings(), **identity.file_contents(), **job.contents}
    folder = first_then_all(
        lambda: RunFolder.open(
            job.training.path,
            settings=settings,
            config_text=gin_config.operative_text(),
            compare=identity.compare,
            train_steps=job.training.options.train_steps,
            overwrite=overwrite,
        )
    )
    for note in folder.notes:
        session.say(note)
    return folder


def train(
    job: "Job",
    folder: "RunFolder",
    *,
    startup: "Startup | None" = None,
    profile_steps: int = 0,
) -> "TrainResult":
    """Trains; the best prompt, the metrics and the summary are written to the folder."""
    import jax

    from prompt_tuning.cli import run_task, scoring, session
    from prompt_tuning.parallel.accelerators import accelerator_of
    from prompt_tuning.parallel.mesh import replicated, shard_batch
    from prompt_tuning.parallel.processes import vote_over
    from prompt_tuning.training import loop
    from prompt_tuning.training.monitoring import Monitoring

    base, method = job.base, job.method
    accelerator = accelerator_of(jax.devices()[0].device_kind)
    folder.write_json(run_task.FILE, run_task.described(job))
    score = scoring.scorer(base, job.data, job.prediction, job.development_splits)
    return loop.train(
        job.training.options,
        folder=folder,
        loss_fn=loss_of(job),
        optimizer=job.training.optimizer,
        trained=job.trained,
        frozen=base.params,
        batches=lambda step: shard_batch(job.stream.batch(step), base.mesh),
        evaluate=lambda trained: score(session.inject_folded(method, trained)),
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


def loss_of(job: "Job") -> "LossFn":
    """Returns the loss of the method's injection, distilled from teachers if there are any."""
    from prompt_tuning.training.step import prompt_loss_fn

    model, loss = job.base.model, job.training.loss
    if job.training.teachers is None:
        return prompt_loss_fn(model, job.method, loss)

    from prompt_tuning.cli.prompt_methods import teachers
    from prompt_tuning.training.distillation import Distillation, distillation_loss_fn

    distillation = Distillation(
        teachers=teachers(job.base, job.data, job.training.teachers),
        weight=job.training.distillation,
    )
    return distillation_loss_fn(model, job.method, loss, distillation)


def facts(job: "Job") -> dict[str, Any]:
    """What the summary of a run says besides its numbers."""
    return {
        "task": job.data.name,
        "model": job.base.config.name,
        "truncated_examples": job.truncated,
    }


def saver(job: "Job", folder: "RunFolder") -> Callable[[Any, int, float], None]:
    """Returns what writes the best numbers to the folder: (trained, step, score) -> None."""
    from prompt_tuning.checkpoints.adapter_files import save_adapter
    from prompt_tuning.checkpoints.prompt_files import PromptMetadata

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


if __name__ == "__main__":
    run(main)
