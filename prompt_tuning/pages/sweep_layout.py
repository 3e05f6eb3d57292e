"""Layout of a sweep's tables and figures, chosen by the settings in which its runs differ.

Rows are those of `results.py`. Redundant columns are omitted, such as the gin file of a task next
to the task.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, TypeGuard

from prompt_tuning.analysis.sweep_plots import macro_scores
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.grid import GIN_FILES, gin_files
from prompt_tuning.sweeps.results import Row, rows_of

SEEDS = ("SEED", "train.seed")
"""Settings that only repeat a run, and are averaged over."""

_MOST_ACROSS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableLayout:
    """The roles of columns in tables and figures.

    Attributes:
      down: columns with a pivot line per combination of values.
      across: the column with a pivot column per value, if any.
      along: the column of the figure's x axis.
      lines: columns with a figure line per combination of values.
      seed: the column to average over.
    """

    down: Sequence[str]
    across: str | None
    along: str
    lines: Sequence[str]
    seed: str


def described_rows(records: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Returns the rows of `results.rows_of`, with a column for each folder of gin files.

    `prompts/class_label.gin` becomes "class_label" in the column "prompts/".
    """
    rows = rows_of(records)
    by_run = {run: _by_folder(record["settings"]) for run, record in records.items()}
    folders = list(dict.fromkeys(name for files in by_run.values() for name in files))
    return [{**row, **{name: by_run[row["run"]].get(name) for name in folders}} for row in rows]


def _by_folder(settings: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for file in map(PurePosixPath, gin_files(settings)):
        found.setdefault(f"{file.parent.name}/", []).append(file.stem)
    return {folder: " + ".join(stems) for folder, stems in found.items()}


def table_layout(rows: Sequence[Row]) -> TableLayout:
    """Chooses the layout from the columns in which runs differ, without redundant ones."""
    names = list(rows[0])
    first = names.index("task")
    settings = [name for name in names[1:first] if name not in (GIN_FILES, *SEEDS)]
    folders = [name for name in names if name.endswith("/") and name not in settings]
    kept: list[str] = []
    for name in ["model", "task", *folders, *settings]:
        varies = name in rows[0] and len(distinct(rows, name)) > 1
        if varies and not any(_determines(rows, each, name) for each in kept):
            kept.append(name)
    seed = next((name for name in SEEDS if name in rows[0]), "run")
    free = [name for name in kept if name != "task"]
    numeric = [name for name in free if all(is_number(v) for v in distinct(rows, name))]
    along = max(numeric, key=lambda name: len(distinct(rows, name)), default=None)
    along = along or next((n for n in reversed(free) if n != "model"), None)
    along = along or next(iter(free), None)
    short = [name for name in free if len(distinct(rows, name)) <= _MOST_ACROSS]
    across = along if along in short else next(reversed(short), None)
    return TableLayout(
        down=[name for name in kept if name != across] or ["task"],
        across=across,
        along=along or ("task" if seed == "run" else seed),
        lines=[name for name in free if name != along],
        seed=seed,
    )


def _determines(rows: Sequence[Row], known: str, name: str) -> bool:
    found: dict[Any, Any] = {}
    return all(found.setdefault(str(row[known]), row[name]) == row[name] for row in rows)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number; False for a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def distinct(rows: Sequence[Row], name: str) -> list[Any]:
    """Returns a column's distinct values, sorted: models by size, numbers by value, then texts."""
    numbers = {row["model"]: row.get("frozen_parameters") for row in rows}
    sizes = {model: float(n) if is_number(n) else 0.0 for model, n in numbers.items()}

    def order(value: Any) -> tuple[int, float, str]:
        if name == "model":
            return 0, sizes[value], str(value)
        return (0, float(value), "") if is_number(value) else (1, 0.0, str(value))

    return sorted({str(row[name]): row[name] for row in rows}.values(), key=order)


def macro_rows(rows: Sequence[Row], layout: TableLayout) -> tuple[list[Row], str]:
    """Returns the mean over tasks for each setting and seed, or no rows and the reason."""
    runs = {row["run"] for row in rows}
    # A mixture's rows already include the mean.
    if layout.along == "task" or len(distinct(rows, "task")) < 2 or len(runs) < len(rows):
        return [], ""
    by = [name for name in dict.fromkeys([*layout.lines, layout.along]) if name != layout.seed]
    seeded = [row if layout.seed != "run" else {**row, "run": 0} for row in rows]
    try:
        return [dict(row) for row in macro_scores(seeded, by=by, seed=layout.seed)], ""
    except UserError as error:
        return [], f"There is no mean over tasks yet. {error}"
