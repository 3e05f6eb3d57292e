"""`prompt-tuning quickstart`: trains a prompt in about a minute on two CPU cores.

The small frozen model and the TinyWorld task are part of the package. The scores before and after
are on the test split, which is used neither to train the prompt nor to select the best one.
"""

import functools
import time
from collections.abc import Sequence

from prompt_tuning.analysis.curves import plot_learning_curve
from prompt_tuning.cli import gin_config, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.cli.train import NOT_IMPROVED, open_folder
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.recipes import prompts, scoring
from prompt_tuning.recipes.run_block import aligned, run_facts, start_block
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.train import train_job
from prompt_tuning.training.logging import read_rows
from prompt_tuning.training.startup import Startup

CONFIG = "quickstart.gin"
_NEIGHBORS = 3
_POSITIONS = 5


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = parse("quickstart", argv)
    args.gin_file.insert(0, CONFIG)
    started = time.monotonic()

    startup = Startup(say=say)
    loading.load_config(args)
    job = loading.prepare(part=startup.part)
    folder = open_folder(job, overwrite=args.overwrite)
    where = folder.path
    say(start_block(run_facts(job, **gin_config.chosen())))

    held_out = load_splits(job.base, job.data, "test")
    score = scoring.scorer(job.base, job.data, job.prediction, held_out)
    say("Scoring the untrained prompt on the test split ...")
    untrained = score(functools.partial(job.method.apply, job.trained)).score
    result = train_job(job, folder)
    best, options = result.best, job.training.options
    adapter = job.base.load_adapter(loading.prompt_path(str(where), None))
    trained = score(adapter.inject).score
    parameters = count_parameters(job.trained)
    curve = plot_learning_curve(
        read_rows(folder.metrics),
        where / "learning_curve.png",
        score="eval/score",
        title=f"{job.data.name}: {parameters:,} parameters, {job.base.config.name} frozen",
    )

    why = "all of its steps"
    if result.stopped_early:
        why = f"stopped early: {result.ended}"
    print(
        f"\n{job.data.name}, score on the test split, which was not trained on:\n  untrained  "
        f"{untrained:.3f}\n  trained    {trained:.3f}  (the best on {job.prediction.split}, at "
        f"step {best.step:,})\n\nMade {result.step:,} of {options.train_steps:,} steps ({why}); "
        f"{time.monotonic() - started:.0f} seconds in total.\nRun folder: {where}/, learning "
        f"curve: {curve}"
    )
    if best.step == 0:
        print(NOT_IMPROVED)
    rows = [("  Score it", f"prompt-tuning evaluate {where} --split test")]
    if adapter.is_prompt:
        print(
            f"\nNearest vocabulary pieces to the first positions (cosine):\n"
            f"{prompts.neighbors_text(job.base, adapter.prompt[:_POSITIONS], k=_NEIGHBORS)}"
        )
        rows += [
            (
                "  One token",
                f"prompt-tuning quickstart --gin.PROMPT_LENGTH=1 --gin.MODEL_DIR={where}_one_token",
            ),
            (
                "  Random start",
                f"prompt-tuning quickstart --gin_file=prompts/random_uniform.gin "
                f"--gin.MODEL_DIR={where}_random_start",
            ),
        ]
    elif best.step == 0:
        print(
            "The quickstart's settings are for prompts: the command at the top of a method's gin "
            "file has settings for the method."
        )
    print(f"\nWhat to try next:\n{aligned(rows)}")
