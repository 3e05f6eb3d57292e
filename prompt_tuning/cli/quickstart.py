"""`prompt-tuning quickstart`: a prompt learns a task in about three minutes on two CPU cores.

Trains against a small frozen model that comes with the package, on TinyWorld, which comes with
it too. The scores before and after are on the test split, which neither trains the prompt nor
picks the best one.
"""

import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_tuning.cli.__main__ import run
from prompt_tuning.cli.arguments import Parser

if TYPE_CHECKING:
    from prompt_tuning.cli.session import Job

CONFIG = "quickstart.gin"
_NEIGHBORS = 10


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = Parser("quickstart", "Trains a prompt on a small frozen model, and shows what it is.")
    parser.add_argument("--overwrite", action="store_true", help="train again from the start")
    args = parser.parse(argv)
    args.gin_file.insert(0, CONFIG)
    started = time.monotonic()

    from prompt_tuning.analysis.curves import plot_learning_curve
    from prompt_tuning.cli import scoring, session
    from prompt_tuning.cli.train import open_folder, train
    from prompt_tuning.training.logging import read_rows

    session.load_config(args)
    session.say("Reading the task and the frozen model ...")
    job = session.prepare()
    folder = open_folder(job, overwrite=args.overwrite)
    where = folder.path
    if folder.summary.exists():
        session.say(f"{where} holds this run, finished already; --overwrite trains it again.")
    session.say(_introduction(job))

    held_out = session.load_splits(job.base, job.data, "test")
    score = scoring.scorer(job.base, job.data, job.prediction, held_out)
    untrained = score(functools.partial(job.method.apply, job.trained)).score
    best = train(job, folder).best
    adapter = session.load_adapter_for(job.base, session.prompt_path(str(where), None))
    prompt = adapter.prompt
    trained = score(adapter.inject).score
    curve = plot_learning_curve(
        read_rows(folder.metrics),
        where / "learning_curve.png",
        score="eval/score",
        title=f"{prompt.size:,} trained numbers, {job.base.config.name} frozen: {job.data.name}",
    )

    name = job.data.name
    print(
        f"\nNearest vocabulary pieces to each position of the prompt (cosine):\n"
        f"{session.neighbors_text(job.base, prompt, k=_NEIGHBORS)}\n\n"
        f"{name}, test examples never trained on:\n"
        f"  score before, with an untrained prompt:   {untrained:.3f}\n"
        f"  score after, with the prompt of step {best.step:,}: {trained:.3f}\n"
        f"  {time.monotonic() - started:.0f} seconds in all\n\n"
        f"The run is in {where}/, its learning curve in {curve}\n\n"
        f"What to try next:\n"
        f"  prompt-tuning evaluate {where} --split test\n"
        f"  prompt-tuning quickstart --gin.PROMPT_LENGTH=1 --gin.MODEL_DIR=runs/short_prompt\n"
        f"  prompt-tuning quickstart --gin_file=prompts/random_uniform.gin "
        f"--gin.MODEL_DIR=runs/random_start"
    )


def _introduction(job: "Job") -> str:
    import jax

    frozen = sum(leaf.size for leaf in jax.tree.leaves(job.base.params))
    trained = sum(leaf.size for leaf in jax.tree.leaves(job.trained))
    return (
        f"Training {trained:,} numbers for {job.data.name}; the {frozen:,} parameters of "
        f"{job.base.config.name} stay as they are."
    )


if __name__ == "__main__":
    run(main)
