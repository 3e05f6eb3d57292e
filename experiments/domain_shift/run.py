"""Evaluates every run of a sweep on tasks that it wasn't trained on, and writes a table.

    python experiments/domain_shift/run.py FOLDER --on squad=mrqa
    python experiments/domain_shift/run.py FOLDER --on glue_qqp=glue_mrpc_from_qqp --on ...

Each is `prompt-tuning evaluate RUN --gin.MIXTURE_OR_TASK_NAME=TASK`, with the run's best prompt
(or weights) as picked on its own development set. FOLDER/transfer.parquet and .csv get a row for
each run and task, including its own; existing rows are kept and not evaluated again. Further
arguments are passed to `evaluate`, such as --gin.DATA_DIR=FOLDER for the tasks' files.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write
from prompt_tuning.recipes.scripts import output_of
from prompt_tuning.recipes.scripts import run as with_one_line_errors
from prompt_tuning.sweeps.results import Row, read_records, rows_of, write_table

STEM = "transfer"
"""What the scores are called in a sweep's folder."""

METHODS = {"weights": "model tuning", "soft_prompt": "prompt tuning"}


def main(argv: Sequence[str]) -> None:
    """Scores the runs and writes the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="the sweep's")
    parser.add_argument(
        "--on",
        action="append",
        required=True,
        metavar="TRAINED=TASK,TASK",
        help="the tasks to score what was trained on TRAINED on",
    )
    options, passed_on = parser.parse_known_args(argv)
    tasks = scored_on(options.on)
    rows: list[Row] = []
    for name, record in read_records(options.folder).items():
        trained = rows_of({name: record})[-1]
        if trained["task"] not in tasks:
            raise UserError(f"--on says nothing of {trained['task']}, which a run was trained on.")
        start = told_of(trained)
        metrics = record["summary"]["metrics"]
        rows.append({**start, "task": trained["task"], **metrics, "score": trained["score"]})
        for task in tasks[trained["task"]]:
            scored = score(options.folder / trained["folder"], task, passed_on)
            rows += [{**start, **row} for row in scored]
            print(name, *(f"{row['task']} {row['score']:.3f}" for row in scored), flush=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    rows = [{name: row.get(name) for name in columns} for row in rows]
    print(*write_table(rows, options.folder / STEM), sep="\n")


def scored_on(options: Sequence[str]) -> dict[str, list[str]]:
    """Returns the tasks to score by the one trained on, from what --on was given."""
    tasks: dict[str, list[str]] = {}
    for option in options:
        trained, equals, others = option.partition("=")
        if not (trained and equals and others):
            raise UserError(f"--on is '{option}'; expected TRAINED=TASK or TRAINED=TASK,TASK.")
        tasks.setdefault(trained, []).extend(others.split(","))
    return tasks


def told_of(trained: Mapping[str, Any]) -> Row:
    """Returns the columns that describe a run."""
    kept = ("run", "model", "SEED", "trained_parameters", "git_commit", "device")
    return {
        **{name: trained[name] for name in kept},
        "method": METHODS.get(trained["method"], trained["method"]),
        "trained on": trained["task"],
    }


def score(run: Path, task: str, passed_on: Sequence[str]) -> list[Row]:
    """Returns a row for the task, or for each of a mixture's tasks."""
    kept = run / f"{STEM}_{task}.json"
    if not kept.exists():
        output = output_of(
            ["evaluate", str(run), f"--gin.MIXTURE_OR_TASK_NAME={task!r}", *passed_on]
        )
        with atomic_write(kept, fix="Make the sweep's folder writable.") as file:
            file.write(output.encode())
    found = json.loads(kept.read_text())
    told = ("task", "split", "prompt", "score")
    by_task: dict[str, Row] = {}
    for name, value in found.items():
        if name not in told:
            of, slash, metric = name.rpartition("/")
            by_task.setdefault(of if slash else task, {})[metric] = value
    if len(by_task) == 1:
        return [{"task": task, **next(iter(by_task.values())), "score": found["score"]}]
    return [
        {"task": name, **metrics, "score": sum(metrics.values()) / len(metrics)}
        for name, metrics in by_task.items()
    ]


if __name__ == "__main__":
    with_one_line_errors(main)
