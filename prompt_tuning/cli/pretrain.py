"""`prompt-tuning pretrain`: trains all weights of a model on plain text.

It continues from a model (`INITIAL_CHECKPOINT_PATH`) or from random weights. The same command on
the same folder resumes an interrupted run. The resulting `weights.safetensors` and vocabulary are
a frozen model for all other commands.
"""

import dataclasses
from collections.abc import Sequence

from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.gin_config import chosen, macro
from prompt_tuning.cli.parsers import parse
from prompt_tuning.cli.train import open_folder
from prompt_tuning.parallel.mesh import shard_batch
from prompt_tuning.recipes import pretraining
from prompt_tuning.recipes.model_files import write_model
from prompt_tuning.recipes.pretraining import PretrainingJob, held_out_scorer
from prompt_tuning.recipes.run_block import pretraining_facts, start_block
from prompt_tuning.recipes.say import say
from prompt_tuning.training import loop
from prompt_tuning.training.monitoring import Monitoring
from prompt_tuning.training.run import Member, TrainResult
from prompt_tuning.training.run_folder import FIX, RunFolder
from prompt_tuning.training.startup import Startup
from prompt_tuning.training.step import model_loss_fn

CONFIG = "runs/pretrain.gin"
WEIGHTS = "weights.safetensors"


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = parse("pretrain", argv)
    args.gin_file.insert(0, CONFIG)

    startup = Startup(say=say)
    loading.load_config(args)
    vocabulary = configurables.vocabulary()
    job = pretraining.prepare(
        configurables.train(),
        configurables.objective(),
        configurables.corpus(),
        configurables.layout(),
        vocabulary,
        lambda: (
            configurables.new_model(vocabulary)
            if macro("INITIAL_CHECKPOINT_PATH") is None
            else configurables.frozen_model()
        ),
        part=startup.part,
    )
    folder = open_folder(job, overwrite=args.overwrite)
    say(start_block(pretraining_facts(job, optimizer=chosen()["optimizer"])))
    result = pretrain(job, folder, startup=startup)
    where, best = folder.path, result.best
    say(
        f"Held-out loss {best.metrics['loss']:.4f} at its best, at step {best.step}; the "
        f"weights of step {result.step} are {where / WEIGHTS}.\n"
        f"Train a prompt on them: prompt-tuning train --gin_file=runs/train.gin ... "
        f"--gin.INITIAL_CHECKPOINT_PATH={where} --gin.VOCABULARY_PATH=None"
    )


def pretrain(
    job: PretrainingJob, folder: RunFolder, *, startup: Startup | None = None
) -> TrainResult:
    """Trains, and writes the last weights, the metrics and the summary to the folder."""
    base, score = job.base, held_out_scorer(job)
    member = Member(
        folder=folder,
        options=job.training.options,
        loss_fn=model_loss_fn(base.model, job.training.loss),
        optimizer=job.training.optimizer,
        trained=base.params,
        # Batches are sharded by rows; XLA decides the sharding of weights and moments.
        batches=lambda step: shard_batch(job.stream.batch(step), base.mesh),
        facts={
            "objective": job.objective.name,
            "model": job.model_name,
            "tokens": job.tokens,
        },
    )
    (result,) = loop.train_loop(
        [member],
        frozen=None,
        evaluate=lambda members, trained: [score(*trained)],
        monitoring=Monitoring(startup=startup),
    )
    write_model(
        folder.path,
        result.trained,
        dataclasses.replace(base.config, name=job.model_name),
        base.vocabulary,
        {"objective": job.objective.name, "step": str(result.step)},
        fix=FIX,
    )
    return result
