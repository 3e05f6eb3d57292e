"""`prompt-tuning train`: trains a prompt against a frozen model, into a run folder.

The same command on the same folder goes on with an interrupted run.
"""

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser

if TYPE_CHECKING:
    from prompt_tuning.cli.session import Job
    from prompt_tuning.training.loop import TrainResult
    from prompt_tuning.training.run_folder import RunFolder

_IRRELEVANT = (
    "MODEL_DIR",
    "train.folder",
    "train.tensorboard",
    "train.wandb_project",
    "MODEL_PARALLEL",
    "DATA_PARALLEL",
    "FSDP",
    "layout.model_parallel",
    "layout.data_parallel",
    "layout.fsdp",
)
"""Settings that a run's result doesn't depend on: a run folder may be moved, and a run go on with
other devices."""


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("train", "Trains a prompt against a frozen model.")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove the run that MODEL_DIR holds and start over",
    )
    args = parser.parse(argv)

    from prompt_tuning.cli import session

    session.load_config(args)
    job = session.prepare()
    folder = open_folder(job, overwrite=args.overwrite)
    best = train(job, folder).best
    where = folder.path
    session.say(
        f"Best score {best.score:.4f} at step {best.step}; all is in {where}/ "
        f"(summary.json, metrics.jsonl, {session.BEST_PROMPT}.npy and .safetensors).\n"
        f"Score it again:  prompt-tuning evaluate {where}\n"
        f"Use it:          prompt-tuning infer {where} --input lines.txt\n"
        f"Look at it:      prompt-tuning neighbors {where}"
    )


def open_folder(job: "Job", *, overwrite: bool) -> "RunFolder":
    """Makes the run folder, or goes back to that of the same settings and the same contents."""
    from prompt_tuning.cli import gin_config
    from prompt_tuning.training.run_folder import RunFolder

    settings = gin_config.settings()
    named = {name: text for name, text in settings.items() if name not in _IRRELEVANT}
    return RunFolder.open(
        job.training.folder,
        settings={**named, **job.contents},
        config_text=gin_config.operative_text(),
        overwrite=overwrite,
    )


def train(job: "Job", folder: "RunFolder") -> "TrainResult":
    """Trains; the best prompt, the metrics and the summary are written to the folder."""
    from prompt_tuning.checkpoints.prompt_files import PromptMetadata, save_prompt
    from prompt_tuning.cli import scoring, session
    from prompt_tuning.methods.prompt import soft_prompt_array
    from prompt_tuning.parallel.mesh import shard_batch
    from prompt_tuning.training import loop
    from prompt_tuning.training.step import prompt_loss_fn

    base, method, options = job.base, job.method, job.training.options
    split = job.prediction.split
    score = scoring.scorer(base, job.data, job.prediction, job.development_splits)

    def save_best(trained, step: int, best: float) -> None:
        metadata = PromptMetadata(
            model=base.config.name,
            task=job.data.name,
            step=step,
            metric=f"{split} score",
            score=best,
            seed=options.seed,
            vocabulary_hash=base.vocabulary.hash,
        )
        save_prompt(folder.path / session.BEST_PROMPT, soft_prompt_array(trained), metadata)

    return loop.train(
        options,
        folder=folder,
        loss_fn=prompt_loss_fn(base.model, method, job.training.loss),
        optimizer=job.training.optimizer,
        trained=job.trained,
        frozen=base.params,
        batches=lambda step: shard_batch(job.stream.batch(step), base.mesh),
        evaluate=lambda trained: score(functools.partial(method.apply, trained)),
        save_best=save_best,
        facts={
            "task": job.data.name,
            "model": base.config.name,
            "truncated_examples": job.truncated,
        },
    )


if __name__ == "__main__":
    run(main)
