"""The page on a sweep: means and deviations, figures, all runs and configurations.

`sweep_layout.py` chooses the columns and axes.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from markupsafe import Markup

from prompt_tuning.pages.charts import Line, line_chart, sparkline
from prompt_tuning.pages.run_page import scores
from prompt_tuning.pages.sweep_layout import (
    SEEDS,
    TableLayout,
    described_rows,
    distinct,
    is_number,
    macro_rows,
    table_layout,
)
from prompt_tuning.pages.web_page import (
    NOTHING,
    Sorted,
    duration,
    number,
    render,
    run_name,
    setting,
)
from prompt_tuning.sweeps.results import Row, pivot

_REPEATS = (*SEEDS, "run")

_MOST_LINES = 12
_MOST_CHARTS = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """The contents of a sweep's folder.

    Attributes:
      folder: its path.
      records: of finished runs, by name, from `results.read_records`.
      failures: of unfinished runs, by name.
      metrics: rows of runs that still have a metrics.jsonl, by name.
      packages: versions of packages, one mapping for each combination that runs used.
    """

    folder: str
    records: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Sequence[Mapping[str, Any]]]
    packages: Sequence[Mapping[str, str]]


def sweep_page(sweep: Sweep) -> str:
    """Returns the page."""
    rows = described_rows(sweep.records)
    layout = table_layout(rows)
    scored = [row for row in rows if math.isfinite(row["score"])]
    sections = ["Results", "Figure", "Runs", "Configurations", "Provenance"]
    common, configurations = _configurations(sweep.records)
    return render(
        "sweep.html",
        title=PurePosixPath(sweep.folder.rstrip("/")).name or sweep.folder,
        kind="sweep",
        remark=sweep.folder,
        sections=[*sections, *(["Failures"] if sweep.failures else [])],
        headline=_headline(sweep, rows, scored, layout),
        pivots=_pivots(scored, layout),
        charts=_charts(scored, layout),
        runs=_runs(sweep, rows, layout),
        common=common,
        configurations=configurations,
        about=_about(sweep.records),
        packages=sweep.packages,
        failures=[
            [run_name(run, "run failed"), failure.get("times"), str(failure.get("why", NOTHING))]
            for run, failure in sweep.failures.items()
        ],
    )


def _headline(
    sweep: Sweep, rows: Sequence[Row], scored: Sequence[Row], layout: TableLayout
) -> dict[str, tuple[Any, Any]]:
    seconds = [record["summary"].get("wall_seconds") for record in sweep.records.values()]
    known = [each for each in seconds if is_number(each)]
    failed = f"{len(sweep.failures)} failed" if sweep.failures else "none has failed"
    best, where = _best(scored, layout)
    values = {
        "best mean score": (number(best), where),
        "finished runs": (number(len(sweep.records)), failed),
    }
    for name, plural in (("model", "models"), ("task", "tasks")):
        found = [str(value) for value in distinct(rows, name)]
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        values[plural] = (str(len(found)), ", ".join(found[:4]) + more)
    values["median time"] = (
        duration(statistics.median(known) if known else None),
        "of a run; the members of a population train at once",
    )
    return values


def _best(rows: Sequence[Row], layout: TableLayout) -> tuple[float | None, str]:
    """Returns the best mean over seeds, and over tasks if possible, with its setting."""
    macro, _ = macro_rows(rows, layout)
    if not rows:
        return None, "no score is a number"
    task = [] if macro else ["task"]
    names = [*task, *(name for name in (*layout.lines, layout.along) if name not in _REPEATS)]
    cells: dict[tuple[Any, ...], list[float]] = {}
    for row in macro or rows:
        cells.setdefault(tuple(str(row[name]) for name in names), []).append(float(row["score"]))
    best, scored = max(cells.items(), key=lambda item: statistics.fmean(item[1]))
    shown = ", ".join(
        f"{name} {value}" if name.isupper() else value
        for name, value in zip(names, best, strict=True)
    )
    many = f", {len(scored)} seeds" if len(scored) > 1 else ""
    return statistics.fmean(scored), shown + many


def _pivots(rows: Sequence[Row], layout: TableLayout) -> list[Any]:
    """Returns tables of means, or the reasons why there are none."""
    if not rows:
        return ["No score is a number."]
    parts: list[Any] = []
    macro, why = macro_rows(rows, layout)
    if macro:
        down = [name for name in layout.down if name != "task"]
        tasks = len(distinct(rows, "task"))
        caption = (
            f"The mean score over {tasks} tasks: mean ± standard deviation over seeds (how many)."
        )
        parts.append(_pivot(macro, rows, layout, down, caption))
    elif why:
        parts.append(why)
    start = "By task" if macro else "The score"
    caption = f"{start}: mean ± standard deviation over seeds (how many)."
    parts.append(_pivot(rows, rows, layout, layout.down, caption))
    return parts


def _pivot(
    rows: Sequence[Row],
    all_rows: Sequence[Row],
    layout: TableLayout,
    down: Sequence[str],
    caption: str,
) -> dict[str, Any]:
    across, names = layout.across, len(down)
    columns = [*down, *([across] if across else [])]
    orders = {name: [str(value) for value in distinct(all_rows, name)] for name in columns}
    header, lines = pivot(
        rows, down=down, across=across, order=lambda name, value: orders[name].index(str(value))
    )
    told = f"{caption} Columns: {_name(across)}." if across else caption
    shown = [[*line[:names], *map(_mean_cell, line[names:])] for line in lines]
    return {"title": told, "columns": [*map(_name, down), *header[names:]], "rows": shown}


def _mean_cell(text: str) -> Any:
    mean, sign, deviation = text.partition(" ± ")
    try:
        key = float(mean)
    except ValueError:
        return NOTHING
    if not sign:
        return Sorted(mean, key)
    shown = Markup('{}<span class="deviation"> ± {}</span>').format(mean, deviation)
    return Sorted(shown, key)


def _charts(rows: Sequence[Row], layout: TableLayout) -> list[Markup]:
    """Returns a chart of the mean over tasks, if there is one, and a chart per task."""
    if not rows:
        return []
    macro, _ = macro_rows(rows, layout)
    tasks = distinct(rows, "task")
    shown: list[tuple[str, Sequence[Row]]] = []
    if layout.along == "task":
        shown, tasks = [("Score", rows)], []
    if macro:
        shown.append((f"Mean over {len(tasks)} tasks", macro))
    shown += [(str(task), [row for row in rows if row["task"] == task]) for task in tasks]
    drawn = [(title, _lines(own, rows, layout)) for title, own in shown[:_MOST_CHARTS]]
    # The same axis for all charts; its upper end ignores deviations.
    low = min(
        y - deviation
        for _, lines in drawn
        for line in lines
        for (_, y), deviation in zip(line.points, line.spread, strict=True)
    )
    high = max(float(row["score"]) for row in rows)
    labels = [str(value) for value in distinct(rows, layout.along)]
    return [
        line_chart(
            lines,
            title=title,
            xlabel=_name(layout.along),
            ylabel="score",
            labels=labels,
            span=(low, high),
        )
        for title, lines in drawn
    ]


def _lines(rows: Sequence[Row], all_rows: Sequence[Row], layout: TableLayout) -> list[Line]:
    labels = [str(value) for value in distinct(all_rows, layout.along)]
    found: dict[tuple[str, ...], dict[int, list[float]]] = {
        combination: {} for combination in _ordered_lines(all_rows, layout)
    }
    for row in rows:
        line = found[tuple(str(row[name]) for name in layout.lines)]
        line.setdefault(labels.index(str(row[layout.along])), []).append(float(row["score"]))
    return [
        Line(
            name=", ".join(combination) or "score",
            points=[(float(place), statistics.fmean(at[place])) for place in sorted(at)],
            spread=[
                statistics.stdev(at[place]) if len(at[place]) > 1 else 0.0 for place in sorted(at)
            ],
            faint=len(found) > _MOST_LINES,
        )
        for combination, at in found.items()
    ]


def _ordered_lines(rows: Sequence[Row], layout: TableLayout) -> list[tuple[str, ...]]:
    orders = [[str(value) for value in distinct(rows, name)] for name in layout.lines]
    found = {tuple(str(row[name]) for name in layout.lines) for row in rows}
    return sorted(
        found, key=lambda line: [order.index(x) for order, x in zip(orders, line, strict=True)]
    )


def _runs(sweep: Sweep, rows: Sequence[Row], layout: TableLayout) -> dict[str, Any]:
    names = dict.fromkeys([*layout.lines, layout.along, "task", layout.seed])
    names = [name for name in names if name != "run"]
    told = list(rows[0])
    metrics = told[told.index("task") + 1 : told.index("score")]
    # A single metric is the score itself.
    if all(row[name] in (None, row["score"]) for row in rows for name in metrics):
        metrics = []
    orders = {name: [str(value) for value in distinct(rows, name)] for name in names}
    rows = sorted(rows, key=lambda row: [orders[name].index(str(row[name])) for name in names])
    drawn = {run: sparkline(scores(found)) for run, found in sweep.metrics.items()}
    numbers = ("best_step", "steps", "trained_parameters", "wall_seconds")
    curves = ["curve"] if any(drawn.values()) else []
    shown = [
        [
            *(setting(row[name]) for name in names),
            row["score"],
            *([drawn.get(row["run"], "")] if curves else []),
            *(row[name] for name in metrics),
            *(row[name] for name in numbers),
            run_name(row["run"]),
        ]
        for row in rows
    ]
    columns = [
        *map(_name, names),
        "score",
        *curves,
        *metrics,
        *(name.replace("_", " ") for name in numbers),
        "run",
    ]
    return {"columns": columns, "rows": shown}


def _name(column: str) -> str:
    """Returns a column's name on the page; a folder of gin files without its slash."""
    return column.removesuffix("/")


def _configurations(
    records: Mapping[str, Mapping[str, Any]],
) -> tuple[Mapping[str, str] | None, list[dict[str, Any]]]:
    """Returns the common settings, and the distinct configurations, without seeds, with their runs.

    The common settings are None if the runs recorded no configuration.
    """
    configs = {
        run: {name: str(value) for name, value in (record.get("config") or {}).items()}
        for run, record in records.items()
    }
    if not any(configs.values()):
        return None, []
    common = {
        name: value
        for name, value in next(iter(configs.values())).items()
        if name not in SEEDS and all(config.get(name) == value for config in configs.values())
    }
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run, config in configs.items():
        own = {name: v for name, v in config.items() if name not in common and name not in SEEDS}
        groups.setdefault(tuple(sorted(own.items())), []).append(run)
    return common, [
        {
            "name": name,
            "settings": dict(own),
            "seeds": {
                run: _seed_text({**configs[run], **records[run]["settings"]}) for run in runs
            },
        }
        for name, (own, runs) in zip(_short_names(list(groups)), groups.items(), strict=True)
    ]


def _seed_text(settings: Mapping[str, Any]) -> str:
    return next((f"{name} = {settings[name]}" for name in SEEDS if name in settings), "no seed")


def _short_names(groups: Sequence[tuple[tuple[str, str], ...]]) -> list[str]:
    """Names configurations by their macros (uppercase), or otherwise by all differences."""
    names = []
    for own in groups:
        macros = [(name, value) for name, value in own if name.isupper()] or own
        names.append(", ".join(f"{name} = {value}" for name, value in macros))
    if len(set(names)) < len(names):
        names = [", ".join(f"{name} = {value}" for name, value in own) for own in groups]
    return [name or "all runs" for name in names]


def _about(records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Returns the versions, durations and folders of the runs."""
    versions: dict[str, dict[str, int]] = {}
    for record in records.values():
        for name, text in record.get("versions", {}).items():
            counts = versions.setdefault(name.replace("_", " "), {})
            counts[str(text)] = counts.get(str(text), 0) + 1
    about = {
        name: "; ".join(
            text if len(counts) == 1 else f"{text} ({count} runs)" for text, count in counts.items()
        )
        for name, counts in versions.items()
    }
    seconds = [
        value
        for record in records.values()
        if is_number(value := record["summary"].get("wall_seconds"))
    ]
    if seconds:
        about["time of a run"] = f"{duration(min(seconds))} to {duration(max(seconds))}"
    about["folders of runs"] = ", ".join(
        sorted({record["folder"].partition("/members/")[0] for record in records.values()})
    )
    return about
