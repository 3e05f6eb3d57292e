"""The page on a sweep: means and deviations, a figure, every run, every configuration.

Which columns and axes there are is picked in `layout.py`.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from prompt_tuning.analysis import web_page
from prompt_tuning.analysis.run_page import scores
from prompt_tuning.analysis.svg_charts import Line, line_chart, sparkline
from prompt_tuning.analysis.web_page import (
    Html,
    Sorted,
    duration,
    element,
    folded,
    joined,
    named_values,
    note,
    number,
)
from prompt_tuning.sweeps.layout import (
    SEEDS,
    Layout,
    described_rows,
    distinct,
    is_number,
    layout_of,
    macro_rows,
)
from prompt_tuning.sweeps.results import Row, pivot

_REPEATS = (*SEEDS, "run")

_MOST_LINES = 12
_MOST_CHARTS = 9
_FEW = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep's folder holds.

    Attributes:
      folder: where it is.
      records: of its finished runs, by their names, as `results.read_records` gives them.
      failures: of runs that have not finished, by their names.
      metrics: rows of the metrics.jsonl of runs that still have one, by their names.
      packages: versions of packages, one mapping for each combination that runs had.
    """

    folder: str
    records: Mapping[str, Mapping[str, Any]]
    failures: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Sequence[Mapping[str, Any]]]
    packages: Sequence[Mapping[str, str]]


def sweep_page(sweep: Sweep) -> str:
    """Returns the page."""
    rows = described_rows(sweep.records)
    layout = layout_of(rows)
    scored = [row for row in rows if math.isfinite(row["score"])]
    parts = {
        "": [_headline(sweep, rows, scored, layout)],
        "Results": _pivots(scored, layout),
        "Figure": [_figure(scored, layout)],
        "Runs": [_runs(sweep, rows, layout)],
        "Configurations": _configurations(sweep.records),
        "Provenance": _provenance(sweep),
    }
    if sweep.failures:
        parts["Failures"] = [_failures(sweep.failures)]
    name = PurePosixPath(sweep.folder.rstrip("/")).name or sweep.folder
    return web_page.page(name, kind="sweep", remark=sweep.folder, parts=parts)


def _headline(sweep: Sweep, rows: Sequence[Row], scored: Sequence[Row], layout: Layout) -> Html:
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
    return web_page.cards(values)


def _best(rows: Sequence[Row], layout: Layout) -> tuple[float | None, str]:
    """Returns the best mean over seeds, over tasks too where it can be, and its setting."""
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


def _pivots(rows: Sequence[Row], layout: Layout) -> list[Any]:
    if not rows:
        return [note("No score is a number.")]
    parts = []
    macro, why = macro_rows(rows, layout)
    if macro:
        down = [name for name in layout.down if name != "task"]
        tasks = len(distinct(rows, "task"))
        caption = (
            f"The mean score over {tasks} tasks: mean ± standard deviation over seeds (how many)."
        )
        parts.append(_pivot(macro, rows, layout, down, caption))
    elif why:
        parts.append(note(why))
    start = "By task" if macro else "The score"
    caption = f"{start}: mean ± standard deviation over seeds (how many)."
    parts.append(_pivot(rows, rows, layout, layout.down, caption))
    return parts


def _pivot(
    rows: Sequence[Row], all_rows: Sequence[Row], layout: Layout, down: Sequence[str], caption: str
) -> Html:
    across = layout.across
    header, lines = pivot(rows, down=down, across=across)
    names = len(down)
    heads = [str(value) for value in distinct(all_rows, across)] if across else header[names:]
    places = [header.index(head, names) for head in heads if head in header[names:]]
    orders = [[str(value) for value in distinct(all_rows, name)] for name in down]
    lines = sorted(
        lines,
        key=lambda line: [order.index(cell) for order, cell in zip(orders, line, strict=False)],
    )
    shown = [[*line[:names], *(_mean_cell(line[place]) for place in places)] for line in lines]
    told = f"{caption} Across: {_name(across)}." if across else caption
    return web_page.table([*map(_name, down), *(header[i] for i in places)], shown, caption=told)


def _mean_cell(text: str) -> Any:
    mean, sign, deviation = text.partition(" ± ")
    try:
        key = float(mean)
    except ValueError:
        return web_page.NOTHING
    if not sign:
        return Sorted(mean, key)
    return Sorted(joined([mean, element("span", f" ± {deviation}", class_="deviation")]), key)


def _figure(rows: Sequence[Row], layout: Layout) -> Html:
    """A chart of the mean over tasks, where there is one, and a chart of each task."""
    if not rows:
        return note("No score is a number.")
    macro, _ = macro_rows(rows, layout)
    tasks = distinct(rows, "task")
    shown: list[tuple[str, Sequence[Row]]] = []
    if layout.along == "task":
        shown, tasks = [("Score", rows)], []
    if macro:
        shown.append((f"Mean over {len(tasks)} tasks", macro))
    shown += [(str(task), [row for row in rows if row["task"] == task]) for task in tasks]
    drawn = [(title, _lines(own, rows, layout)) for title, own in shown[:_MOST_CHARTS]]
    # The same axis for all, so that they can be compared; no deviation makes it longer upwards.
    low = min(
        y - deviation
        for _, lines in drawn
        for line in lines
        for (_, y), deviation in zip(line.points, line.spread, strict=True)
    )
    high = max(float(row["score"]) for row in rows)
    labels = [str(value) for value in distinct(rows, layout.along)]
    charts = [
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
    return element("div", *charts, class_="charts")


def _lines(rows: Sequence[Row], all_rows: Sequence[Row], layout: Layout) -> list[Line]:
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


def _ordered_lines(rows: Sequence[Row], layout: Layout) -> list[tuple[str, ...]]:
    orders = [[str(value) for value in distinct(rows, name)] for name in layout.lines]
    found = {tuple(str(row[name]) for name in layout.lines) for row in rows}
    return sorted(
        found, key=lambda line: [order.index(x) for order, x in zip(orders, line, strict=True)]
    )


def _runs(sweep: Sweep, rows: Sequence[Row], layout: Layout) -> Html:
    names = dict.fromkeys([*layout.lines, layout.along, "task", layout.seed])
    names = [name for name in names if name != "run"]
    told = list(rows[0])
    metrics = told[told.index("task") + 1 : told.index("score")]
    # Of one metric there is no more to tell than the score.
    if all(row[name] in (None, row["score"]) for row in rows for name in metrics):
        metrics = []
    orders = {name: [str(value) for value in distinct(rows, name)] for name in names}
    rows = sorted(rows, key=lambda row: [orders[name].index(str(row[name])) for name in names])
    drawn = {run: sparkline(scores(found)) for run, found in sweep.metrics.items()}
    numbers = ("best_step", "steps", "trained_parameters", "wall_seconds")
    curves = ["curve"] if any(drawn.values()) else []
    shown = [
        [
            *(_setting(row[name]) for name in names),
            row["score"],
            *([drawn.get(row["run"], Html())] if curves else []),
            *(row[name] for name in metrics),
            *(row[name] for name in numbers),
            element("span", row["run"], class_="run"),
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
    return web_page.table(columns, shown, sortable=True)


def _name(column: str) -> str:
    """What a column is called on the page; a folder of gin files without its slash."""
    return column.removesuffix("/")


def _setting(value: Any) -> Any:
    """A setting as it was set: 0.0003 is no 3.00e-04."""
    return Sorted(str(value), value) if is_number(value) else value


def _configurations(records: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """Each configuration apart from its seed, with its runs; what all have in common is first."""
    configs = {
        run: {name: str(value) for name, value in (record.get("config") or {}).items()}
        for run, record in records.items()
    }
    first = next(iter(configs.values()))
    common = {
        name: value
        for name, value in first.items()
        if name not in SEEDS and all(config.get(name) == value for config in configs.values())
    }
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run, config in configs.items():
        own = {name: v for name, v in config.items() if name not in common and name not in SEEDS}
        groups.setdefault(tuple(sorted(own.items())), []).append(run)
    if not any(configs.values()):
        return [note("The runs recorded no configuration.")]
    told = f"In common: {len(common)} settings"
    parts = [folded(told, web_page.code(_gin_text(common)))]
    summaries = _short_names(list(groups))
    for summary, (own, runs) in zip(summaries, groups.items(), strict=True):
        count = f" {len(runs)} runs" if len(runs) > 1 else " 1 run"
        seeds = named_values(
            {run: _seed_text(records[run]["settings"], configs[run]) for run in runs}
        )
        text = web_page.code(_gin_text(dict(own)))
        parts.append(folded(joined([summary, element("small", count)]), text, seeds))
    listed = parts[1:]
    if len(listed) > _FEW:
        listed = [folded(f"The {len(listed)} configurations, seeds apart", *listed)]
    return [parts[0], *listed]


def _gin_text(settings: Mapping[str, Any]) -> str:
    return "\n".join(f"{name} = {value}" for name, value in settings.items()) or "nothing"


def _seed_text(settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    seeds = {name: {**config, **settings}[name] for name in SEEDS if name in {**config, **settings}}
    return ", ".join(f"{name} = {value}" for name, value in list(seeds.items())[:1]) or "no seed"


def _short_names(groups: Sequence[tuple[tuple[str, str], ...]]) -> list[str]:
    """Names configurations by their macros, in capitals, or else by all that they differ in."""
    names = []
    for own in groups:
        macros = [(name, value) for name, value in own if name.isupper()] or own
        names.append(", ".join(f"{name} = {value}" for name, value in macros))
    if len(set(names)) < len(names):
        names = [", ".join(f"{name} = {value}" for name, value in own) for own in groups]
    return [name or "all runs" for name in names]


def _provenance(sweep: Sweep) -> list[Any]:
    versions: dict[str, dict[str, int]] = {}
    for record in sweep.records.values():
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
        for record in sweep.records.values()
        if is_number(value := record["summary"].get("wall_seconds"))
    ]
    if seconds:
        about["time of a run"] = f"{duration(min(seconds))} to {duration(max(seconds))}"
    about["folders of runs"] = ", ".join(
        sorted({record["folder"].partition("/members/")[0] for record in sweep.records.values()})
    )
    packages = [folded("Packages", named_values(each)) for each in sweep.packages]
    return [named_values(about), *packages]


def _failures(failures: Mapping[str, Mapping[str, Any]]) -> Html:
    rows = [
        [
            element("span", run, class_="run failed"),
            failure.get("times"),
            str(failure.get("why", web_page.NOTHING)),
        ]
        for run, failure in failures.items()
    ]
    return web_page.table(["run", "times", "of what"], rows)
