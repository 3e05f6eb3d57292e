"""`prompt-tuning submit`: writes a submission to the SuperGLUE or GLUE leaderboard.

Takes test-set predictions written by `prompt-tuning evaluate --split test --predictions`, or run
folders, whose prompts first answer the test sets. A run of RTE also answers SuperGLUE's two
diagnostics, one of MNLI its other section and GLUE's diagnostic.
"""

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.errors import UserError
from prompt_tuning.leaderboards.submission import (
    check_submission,
    leaderboard_task,
    missing_files,
    read_predictions,
    write_submission,
)
from prompt_tuning.leaderboards.tables import DIAGNOSTICS
from prompt_tuning.recipes import scoring
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.splits import load_splits


def main(argv: Sequence[str]) -> None:
    """Runs the command; prints the zip's files with their numbers of predictions."""
    args = parse("submit", argv)

    if args.check:
        counts = check_submission(Path(args.check), args.benchmark, partial=True)
    elif args.output is None:
        raise UserError("No zip to write: add --output submission.zip.")
    elif not args.predictions and not args.runs:
        raise UserError("Nothing to submit: give --predictions FILE... or --runs RUN...")
    else:
        rows = [*read_predictions(args.predictions), *_run_predictions(args)]
        counts = write_submission(Path(args.output), args.benchmark, rows, partial=args.partial)
    for file, count in counts.items():
        print(f"{file:14}{count:8,} predictions")
    missing = missing_files(args.benchmark, counts)
    state = f"partial: the leaderboard also needs {', '.join(missing)}" if missing else "complete"
    print(f"{args.check or args.output} follows the official schema ({state}).")


def _run_predictions(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the predictions of each run's prompt on its test sets."""
    if not args.runs:
        return

    for folder in args.runs:
        loading.load_config(args, run=folder)
        data = configurables.data()
        prediction = configurables.predict(data)
        tasks = tuple(_test_tasks(args.benchmark, data.tasks, data.data_dir, args.partial))
        data = dataclasses.replace(data, tasks=tasks)
        if not data.tasks:
            raise UserError(
                f"{folder} is a run of {data.name}, which isn't a {args.benchmark} task."
            )
        say(f"{folder}: predicting {', '.join(task.name for task in data.tasks)} ...")
        base = loading.load_base(data)
        adapter = base.load_adapter(loading.prompt_path(folder, None))
        splits = load_splits(base, data, "test")
        yield from scoring.answers(base, data, prediction, splits, adapter.inject)


def _test_tasks(
    benchmark: str, tasks: Sequence[Any], data_dir: str | None, partial: bool
) -> Iterator[Any]:
    """Yields the tasks that have a file in the submission, and the diagnostics they answer.

    A partial submission omits diagnostics whose files are missing.
    """
    for task in tasks:
        name = leaderboard_task(benchmark, task.name)
        if name is None:
            continue
        yield task
        suffix = task.name.removeprefix(f"{benchmark}_{name}")
        for diagnostic in DIAGNOSTICS[benchmark].get(name, ()):
            found = get_task(f"{benchmark}_{diagnostic}{suffix}")
            try:
                next(found.examples("test", data_dir), None)
            except UserError as error:
                if not partial:
                    raise
                say(f"{found.name} is skipped: {error}")
                continue
            yield found
