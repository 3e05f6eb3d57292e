"""`prompt-tuning train`: trains a prompt for a frozen model.

The same command on the same folder resumes an interrupted run. With POPULATION or `--tune`, it
trains many prompts at once (`population.py`).
"""

from collections.abc import Sequence

from prompt_tuning.checkpoints.adapters.adapter_files import BEST_PROMPT, best_file
from prompt_tuning.cli import configurables, gin_config, identity, loading, population, run_task
from prompt_tuning.cli.next_commands import infer_command
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import at_least
from prompt_tuning.parallel.processes import first_then_all, is_first, joined
from prompt_tuning.recipes import task_file
from prompt_tuning.recipes.identity import compare
from prompt_tuning.recipes.job import Job
from prompt_tuning.recipes.pretraining import PretrainingJob
from prompt_tuning.recipes.run_block import aligned, run_facts, start_block
from prompt_tuning.recipes.say import say, say_once
from prompt_tuning.recipes.scripts import report
from prompt_tuning.recipes.train import train_job
from prompt_tuning.training.run_folder import RunFolder
from prompt_tuning.training.screen import scores_text
from prompt_tuning.training.startup import Startup

NOT_IMPROVED = (
    "Training has not improved the score: the best is that of step 0. Try another LEARNING_RATE, a "
    "shorter warm-up or more steps."
)
"""Printed if no evaluation beat that of step 0."""


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = parse("train", argv)
    at_least(0, {"--profile": args.profile})
    startup = Startup(say=say_once)
    loading.load_config(args)
    with joined(configurables.processes(), report):
        if args.tune or gin_config.macro("POPULATION") is not None:
            population.train_population(args, startup)
            return
        job = loading.prepare(part=startup.part)
        folder = open_folder(job, overwrite=args.overwrite)
        say_once(start_block(run_facts(job, **gin_config.chosen())))
        result = train_job(job, folder, startup=startup, profile_steps=args.profile)
        best = result.best
        prints = is_first()
    if not prints:
        return
    where = folder.path
    found = best_file(where)
    if result.stopped_early:
        say(f"Stopped early, at step {result.step:,}: {result.ended}.")
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
    say(aligned(rows))
    if best.step == 0:
        say(NOT_IMPROVED)


def open_folder(job: Job | PretrainingJob, *, overwrite: bool) -> RunFolder:
    """Creates the run folder, or reopens one with the same settings and contents."""
    settings = {**identity.settings(), **identity.file_contents(), **job.contents}
    folder = first_then_all(
        lambda: RunFolder.open(
            job.training.path,
            settings=settings,
            config_text=gin_config.operative_text(),
            compare=compare,
            train_steps=job.training.options.train_steps,
            overwrite=overwrite,
        )
    )
    if isinstance(job, Job):
        folder.write_json(task_file.FILE, run_task.described(job))
    for note in folder.notes:
        say(note)
    return folder
