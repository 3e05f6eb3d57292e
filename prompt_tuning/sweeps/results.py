"""The finished runs of a sweep as one tidy table, with a row per run and task.

Columns: `run`, the sweep's settings by gin name, `task`, its metrics, `score`, `test_score` if the
split test was reported (`train.report_split`), `method`, `initializer`, `model`, parameter counts,
steps and time, and provenance: a hash of the configuration, versions, the device, the date, the
run's folder.
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow
import pyarrow.parquet

from prompt_tuning.errors import UserError, did_you_mean, listed
from prompt_tuning.files import FilePath, as_path, atomic_write
from prompt_tuning.json_text import parse_json
from prompt_tuning.sweeps.grid import short_hash
from prompt_tuning.sweeps.store import FIX

Row = dict[str, Any]

FROM_SUMMARY = (
    "model",
    "best_step",
    "steps",
    "trained_parameters",
    "frozen_parameters",
    "wall_seconds",
)
"""Columns from a run's summary.json."""

PROVENANCE = ("git_commit", "python", "jax", "device", "date")
"""Columns that the sweep records when a run finishes."""


def provenance(versions: Mapping[str, Any], date: str) -> dict[str, str | None]:
    """Returns the columns of `PROVENANCE`.

    Args:
      versions: a run's versions.json.
      date: of the run's end, in ISO 8601.
    """
    return {
        "git_commit": versions.get("git_commit"),
        "python": versions.get("python"),
        "jax": versions.get("packages", {}).get("jax"),
        "device": ", ".join(dict.fromkeys(versions.get("devices", ()))) or None,
        "date": date,
    }


def read_rows(folder: str | FilePath) -> list[Row]:
    """Returns the rows of a sweep's folder, in the order of run names.

    A mixture's run has a row for each task, and one for the mixture, with the mean.

    Raises:
      UserError: the folder isn't a sweep's, no run has finished, or a record is damaged.
    """
    return rows_of(read_records(folder))


def read_records(folder: str | FilePath) -> dict[str, dict[str, Any]]:
    """Returns the records of finished runs in a sweep's folder, by run name.

    Raises:
      UserError: as for `read_rows`.
    """
    paths = sorted((as_path(folder) / "runs").glob("*.json"))
    if not paths:
        raise UserError(
            f"{folder} has no finished run of a sweep (runs/*.json); start it with "
            "prompt-tuning sweep FILE."
        )
    return {path.stem: _record(path) for path in paths}


def _record(path: FilePath) -> dict[str, Any]:
    try:
        record = parse_json(path.read_bytes())
        missing = next((n for n in ("summary", "settings", "folder") if n not in record), None)
        if missing:
            raise ValueError(f"it has no '{missing}'")
    except ValueError as error:
        raise UserError(
            f"{path} is damaged: {error}. Remove it, and prompt-tuning sweep FILE trains that run "
            "again."
        ) from error
    return record


def rows_of(records: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Returns the rows of records, which are by run name."""
    return _with_all_columns([row for run in records for row in _rows_of(run, records[run])])


def _rows_of(run: str, record: Mapping[str, Any]) -> list[Row]:
    summary, settings = record["summary"], record["settings"]
    start = {"run": run, **{name: _cell(value) for name, value in settings.items()}}
    config, versions = record.get("config", {}), record.get("versions", {})
    method = _named(config, "train.method")
    end = {
        "method": method,
        "initializer": _named(config, f"{method}.initializer"),
        **{name: summary.get(name) for name in FROM_SUMMARY},
        "config": short_hash(config) if config else None,
        **{name: versions.get(name) for name in PROVENANCE},
        "folder": record["folder"],
    }
    report = summary.get("report")
    by_task = _by_task(summary, summary)
    reported = _by_task(summary, report or {})
    rows = []
    for task, (metrics, score) in by_task.items():
        row = {**start, "task": task, **metrics, "score": score}
        if report is not None:
            row[f"{report['split']}_score"] = reported[task][1]
        rows.append({**row, **end})
    return rows


def _by_task(
    summary: Mapping[str, Any], scored: Mapping[str, Any]
) -> dict[str, tuple[dict[str, float], float]]:
    """Returns the metrics and the score of each task; of a mixture, last, only its score."""
    by_task: dict[str, dict[str, float]] = {}
    for name, value in (scored.get("metrics") or {}).items():
        task, slash, metric = name.rpartition("/")
        by_task.setdefault(task if slash else summary["task"], {})[metric] = value
    if len(by_task) == 1:
        return {task: (metrics, scored["score"]) for task, metrics in by_task.items()}
    found = {task: (values, statistics.fmean(values.values())) for task, values in by_task.items()}
    return {**found, summary["task"]: ({}, scored["score"])} if found else {}


def _named(config: Mapping[str, str], parameter: str) -> str | None:
    """Returns the configurable that a parameter refers to, resolving macros: `soft_prompt`."""
    text = config.get(parameter)
    for _ in config:
        if text is None or not text.startswith("%"):
            break
        text = config.get(text.removeprefix("%"))
    return text.strip("@()").rpartition("/")[2] if text and text.startswith("@") else None


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _with_all_columns(rows: Sequence[Row]) -> list[Row]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in columns} for row in rows]


def write_table(rows: Sequence[Row], stem: FilePath) -> list[FilePath]:
    """Writes `<stem>.parquet` and `<stem>.csv`; returns their paths."""
    table = {name: [row[name] for row in rows] for name in rows[0]}
    # A setting may be a number in one run and a string in another.
    for name, column in table.items():
        if len({type(value) for value in column if value is not None} - {int, float}) > 1:
            table[name] = [None if value is None else str(value) for value in column]
    parquet, text = stem.with_suffix(".parquet"), stem.with_suffix(".csv")
    with atomic_write(parquet, fix=FIX) as file:
        pyarrow.parquet.write_table(pyarrow.table(table), file)
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(text, fix=FIX) as file:
        file.write(lines.getvalue().encode())
    return [parquet, text]


def read_table(path: FilePath) -> list[Row]:
    """Returns the rows of a table that `write_table` wrote.

    Args:
      path: of the .parquet file.

    Raises:
      UserError: it doesn't exist, or isn't Parquet.
    """
    try:
        with path.open("rb") as file:
            return pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(
            f"Can't read {path} ({error}); expected the results.parquet of prompt-tuning results."
        ) from error


def select(rows: Sequence[Row], conditions: Mapping[str, str]) -> list[Row]:
    """Returns the rows with these values in their columns, compared as strings.

    Raises:
      UserError: there is no such column.
    """
    for name in conditions:
        check_column(rows, name)
    return [row for row in rows if all(str(row[name]) == text for name, text in conditions.items())]


def check_column(rows: Sequence[Row], name: str) -> None:
    """Raises UserError if the table has no such column."""
    if rows and name not in rows[0]:
        raise UserError(
            f"The results have no column '{name}'; expected {listed(list(rows[0]))}."
            f"{did_you_mean(name, rows[0])}"
        )


def _by_size(name: str, value: Any) -> Any:
    """Returns a sort key for numbers, then strings."""
    del name
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def pivot(
    rows: Sequence[Row],
    *,
    down: Sequence[str],
    across: str | None,
    value: str = "score",
    order: Callable[[str, Any], Any] = _by_size,
) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the lines of a table of means over all other columns.

    Args:
      rows: the results.
      down: columns with a line per combination of values.
      across: the column with a table column per value; if None, there is one column, `value`.
      value: the column to average. Cells are "mean ± standard deviation (n)", or only the value if
        n is 1.
      order: (column, value) -> sort key.

    Raises:
      UserError: there is no such column.
    """
    for name in [*down, value, *([across] if across else [])]:
        check_column(rows, name)
    cells: dict[tuple[Any, ...], dict[Any, list[float]]] = {}
    heads: dict[Any, None] = {}
    for row in rows:
        if isinstance(row[value], int | float) and not math.isnan(row[value]):
            head = row[across] if across else value
            heads[head] = None
            line = cells.setdefault(tuple(row[name] for name in down), {})
            line.setdefault(head, []).append(float(row[value]))
    ordered = sorted(heads, key=lambda head: order(across, head)) if across else list(heads)
    keys = sorted(cells, key=lambda key: [order(*each) for each in zip(down, key, strict=True)])
    lines = [
        [*map(str, key), *(_mean_text(cells[key].get(head, [])) for head in ordered)]
        for key in keys
    ]
    return [*down, *map(str, ordered)], lines


def _mean_text(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.fmean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.3f} ({len(values)})"
