"""Scores every run of a sweep on tasks that it wasn't trained on, and writes a table of it.

    python experiments/domain_shift/run.py FOLDER --on squad=mrqa
    python experiments/domain_shift/run.py FOLDER --on glue_qqp=glue_mrpc_from_qqp --on ...

Each is `prompt-tuning evaluate RUN --gin.MIXTURE_OR_TASK_NAME=TASK`, with the run's best prompt (or
weights) as picked on its own development set. A row for each run and task goes to
FOLDER/transfer.parquet and .csv; what was scored before is kept and not scored again.
"""

import argparse
import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_tuning.cli.__main__ import main as prompt_tuning
from prompt_tuning.cli.__main__ import run as with_one_line_errors
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import read_rows, write_table

STEM = "transfer"


def main(argv: list[str]) -> None:
    """Scores the runs and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the sweep's")
    parser.add_argument(
        "--on",
        action="append",
        required=True,
        metavar="TRAINED=TASK,TASK",
        help="the tasks to score what was trained on TRAINED on",
    )
    options = parser.parse_args(argv)
    tasks = dict(each.split("=", 1) for each in options.on)
    rows: list[dict[str, Any]] = []
    for trained in read_rows(options.folder):
        rows.append(start(trained) | {"task": trained["task"], "score": trained["score"]})
        if trained["task"] not in tasks:
            raise UserError(f"--on says nothing of {trained['task']}, which a run was trained on.")
        for task in tasks[trained["task"]].split(","):
            scored = score(options.folder / trained["folder"], task)
            rows += [start(trained) | row for row in scored]
            print(trained["run"], task, scored[-1]["score"], flush=True)
    print(*write_table(rows, options.folder / STEM), sep="\n")


def start(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a row says of the run that was scored."""
    method = "model tuning" if "model_tuning.gin" in trained["gin_file"] else "prompt tuning"
    kept = {name: trained[name] for name in ("run", "model", "SEED", "trained_parameters")}
    return {**kept, "method": method, "trained on": trained["task"]}


def score(run: Path, task: str) -> list[dict[str, Any]]:
    """Returns a row for the task, or for each of a mixture's tasks."""
    kept = run / f"{STEM}_{task}.json"
    if not kept.exists():
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            prompt_tuning(["evaluate", str(run), f"--gin.MIXTURE_OR_TASK_NAME='{task}'"])
        kept.write_text(output.getvalue())
    found = json.loads(kept.read_text())
    told = {name: value for name, value in found.items() if isinstance(value, float)}
    by_task: dict[str, list[float]] = {}
    for name, value in told.items():
        if name != "score":
            by_task.setdefault(name.rpartition("/")[0] or task, []).append(value)
    if len(by_task) == 1:
        return [{"task": task, "score": found["score"]}]
    return [{"task": name, "score": sum(v) / len(v)} for name, v in by_task.items()]


if __name__ == "__main__":
    with_one_line_errors(main)
