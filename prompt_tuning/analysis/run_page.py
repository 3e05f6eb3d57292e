"""The page on one run: its score, curves, numbers, what its prompt resembles, where it came from.

What is in a run folder, and in that of a population, is told in `training/run_folder.py`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.analysis import web_page
from prompt_tuning.analysis.answers_section import answers_section
from prompt_tuning.analysis.neighbors import Neighbor
from prompt_tuning.analysis.svg_charts import Line, line_chart, sparkline
from prompt_tuning.analysis.tables import Table
from prompt_tuning.analysis.web_page import (
    Html,
    Sorted,
    duration,
    element,
    folded,
    joined,
    markup,
    named_values,
    note,
    number,
)

Row = Mapping[str, Any]

_EVAL = "eval/"
SCORE = f"{_EVAL}score"
"""The development score, in the rows of `metrics.jsonl`."""

_WINDOWS = 60
_MOST_TASKS = 8
# The numbers of the summary that are shown elsewhere, or in words of their own.
_TOLD = ("task", "model", "score", "metrics", "members", "member", "best")
_HASH = "contents of "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """A member of a population: its name, what the population's summary says, its rows."""

    name: str
    told: Mapping[str, Any]
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left.

    Attributes:
      folder: where it is.
      summary: its summary.json.
      rows: its metrics.jsonl; of a population's best member.
      settings: its settings.json.
      versions: its versions.json.
      config: its config.gin.
      hashes: of the files it made, by their names.
      trained_for: what the file of the prompt says of it.
      members: of a population.
      answers: predictions with their targets, by what they are of.
    """

    folder: str
    summary: Mapping[str, Any]
    rows: Sequence[Row]
    settings: Mapping[str, Any]
    versions: Mapping[str, Any]
    config: str
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    trained_for: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    members: Sequence[Member] = ()
    answers: Mapping[str, Sequence[Row]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resemblance:
    """What a prompt resembles.

    Attributes:
      neighbors: the nearest pieces of each position.
      tables: what else is told of it.
    """

    neighbors: Sequence[Sequence[Neighbor]]
    tables: Sequence[Table]


def run_page(run: Run, resemblance: Resemblance | str) -> str:
    """Returns the page.

    Args:
      run: the run.
      resemblance: of its prompt, or a line on why it isn't known.
    """
    task, model = (run.summary.get(name) for name in ("task", "model"))
    parts: dict[str, list[Any]] = {"": [_headline(run)], "Learning curves": [_curves(run)]}
    if run.members:
        parts["Members"] = [_members(run)]
    parts["Metrics"] = [_metrics(run), _evaluations(run.rows)]
    parts["Answers"] = answers_section(run.answers)
    parts["Prompt"] = _prompt(resemblance)
    parts["Configuration"] = [folded("config.gin", web_page.code(run.config))]
    parts["Provenance"] = _provenance(run)
    return web_page.page(
        f"{task} on {model}" if task and model else run.folder,
        kind=f"population of {len(run.members)}" if run.members else "run",
        remark=run.folder,
        parts=parts,
    )


def scores(rows: Sequence[Row], key: str = SCORE) -> list[tuple[float, float]]:
    """Returns the steps where `key` was measured, in order, and its values there.

    Where a step occurs twice, as after a resumed run, its last row counts; values that aren't
    finite are left out.
    """
    by_step = {float(row["step"]): float(row[key]) for row in rows if key in row}
    return sorted(point for point in by_step.items() if all(map(math.isfinite, point)))


def _headline(run: Run) -> Html:
    summary = run.summary
    trained, frozen = (summary.get(f"{name}_parameters") for name in ("trained", "frozen"))
    share = _share(trained, frozen)
    metrics = " and ".join(str(name) for name in summary.get("metrics") or ())
    start = next((value for step, value in scores(run.rows) if step == 0), None)
    speed = summary.get("examples_per_second")
    values = {
        "development score": (number(summary.get("score")), metrics or "of the best evaluation"),
        "best step": (
            number(summary.get("best_step")),
            f"of {number(summary.get('steps'))}; {summary.get('ended') or _ended(summary)}",
        ),
        "untrained": (number(start), "score at step 0"),
        "trained parameters": (number(trained), f"{share} of {number(frozen)} frozen"),
        "time": (
            duration(summary.get("wall_seconds")),
            f"{speed:,.0f} examples a second"
            if isinstance(speed, int | float)
            else "training and evaluation",
        ),
    }
    if start is None:
        del values["untrained"]
    if run.members:
        values["best of"] = (f"{len(run.members)}", str(summary.get("best", "")))
    return web_page.cards(values)


def _ended(summary: Mapping[str, Any]) -> str:
    return "stopped early" if summary.get("stopped_early") else "trained to its last step"


def _share(trained: Any, frozen: Any) -> str:
    if not (isinstance(trained, int) and isinstance(frozen, int) and frozen > 0):
        return web_page.NOTHING
    return f"{100 * trained / frozen:.3g} %"


def _curves(run: Run) -> Html:
    charts = [_score_chart(run)]
    whose = " of the best" if run.members else ""
    for key, name in (("loss", "Training loss"), ("gradient_norm", "Gradient norm")):
        points = scores(run.rows, key)
        title = f"{name}{whose}"
        if len(points) > 1:
            charts.append(_smoothed_chart(points, title))
    return element("div", *charts, class_="charts")


def _score_chart(run: Run) -> Html:
    """The score of a run, of each task of a mixture, or of each member of a population."""
    points = scores(run.rows)
    if not points:
        return note("No evaluation is in metrics.jsonl.")
    lines = [Line(name="score", points=points)]
    if run.members:
        lines = [
            *(Line(name=m.name, points=scores(m.rows), faint=True, colour=7) for m in run.members),
            Line(name=f"{run.summary.get('best')} (the best)", points=points, colour=0),
        ]
    else:
        # Of one task with one metric the score is that metric; a mixture's is a mean.
        keys = [key for key in _eval_keys(run.rows) if key != SCORE]
        tasks = [key for key in keys if scores(run.rows, key) != points][:_MOST_TASKS]
        named = [(key.removeprefix(_EVAL), scores(run.rows, key)) for key in tasks]
        lines += [Line(name=name, points=found) for name, found in named]
        if not tasks and keys:
            lines = [Line(name=keys[0].removeprefix(_EVAL), points=points)]
    step, best = max(points, key=lambda point: (point[1], -point[0]))
    start = [("untrained", points[0][1])] if points[0][0] == 0 and len(points) > 1 else []
    return line_chart(
        lines,
        title="Development score",
        xlabel="training step",
        ylabel="score",
        references=start if len(lines) == 1 else (),
        mark=(step, best, f"{number(best)} at step {step:,.0f}"),
    )


def _smoothed_chart(points: Sequence[tuple[float, float]], title: str) -> Html:
    """Every value faintly, and the mean of windows of them strongly."""
    lines = [Line(name=title, points=points, colour=1)]
    if len(points) > _WINDOWS:
        windows = np.array_split(np.array(points), _WINDOWS)
        means = [tuple(map(float, window.mean(axis=0))) for window in windows]
        lines = [
            Line(name="every value", points=points, colour=1, faint=True),
            Line(name="mean", points=[(x, y) for x, y in means], colour=1),
        ]
    return line_chart(
        lines, title=title, xlabel="training step", ylabel=title.lower(), span=(0.0, 0.0)
    )


def _eval_keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key.startswith(_EVAL)))


def _told_keys(rows: Sequence[Row]) -> list[str]:
    """The metrics, and the score where it is not one of them."""
    keys = [key for key in _eval_keys(rows) if key != SCORE]
    same = any(scores(rows, key) == scores(rows) for key in keys)
    return keys if same else [*keys, SCORE]


def _metrics(run: Run) -> Html:
    best = run.summary.get("best_step")
    evaluations = [row for row in run.rows if SCORE in row]
    moments = {
        f"at the best step, {number(best)}": _last(evaluations, best),
        "at the last evaluation": evaluations[-1] if evaluations else {},
    }
    if untrained := _last(evaluations, 0):
        moments = {"untrained": untrained, **moments}
    keys = _told_keys(run.rows)
    return web_page.table(
        ["metric", *moments],
        [[key.removeprefix(_EVAL), *(row.get(key) for row in moments.values())] for key in keys],
        caption="On the development split, which the best step was picked on.",
    )


def _last(rows: Sequence[Row], step: Any) -> Row:
    return next((row for row in reversed(rows) if row["step"] == step), {})


def _evaluations(rows: Sequence[Row]) -> Html:
    keys = _told_keys(rows)
    evaluations = [row for row in rows if SCORE in row]
    shown = web_page.table(
        ["step", *(key.removeprefix(_EVAL) for key in keys), "seconds"],
        [[row["step"], *(row.get(key) for key in keys), row.get("seconds")] for row in evaluations],
        sortable=True,
    )
    return folded(f"All {len(evaluations)} evaluations", shown)


def _members(run: Run) -> Html:
    told = [member.told.get("settings") for member in run.members]
    settings = [each if isinstance(each, Mapping) else {} for each in told]
    names = list(dict.fromkeys(name for each in settings for name in each))
    rows = []
    for member, own in zip(run.members, settings, strict=True):
        mark = "★ " if member.name == run.summary.get("best") else ""
        rows.append(
            [
                element("span", f"{mark}{member.name}", class_="run"),
                *(_setting(own.get(name, web_page.NOTHING)) for name in names),
                member.told.get("score"),
                sparkline(scores(member.rows)),
                member.told.get("best_step"),
                member.told.get("steps"),
                str(member.told.get("ended", "")),
            ]
        )
    return web_page.table(
        ["member", *names, "score", "curve", "best step", "steps", "how it ended"],
        rows,
        sortable=True,
    )


def _setting(value: Any) -> Any:
    """A setting as it was written; a number is sorted as one."""
    try:
        return Sorted(str(value), float(value))
    except (TypeError, ValueError):
        return str(value)


def _prompt(resemblance: Resemblance | str) -> list[Any]:
    if isinstance(resemblance, str):
        return [note(resemblance)]
    rows = [
        [position, element("div", *map(_piece, nearest), class_="pieces")]
        for position, nearest in enumerate(resemblance.neighbors)
    ]
    caption = (
        "The vocabulary pieces nearest to each position of the prompt, by cosine similarity; the "
        "darker, the nearer."
    )
    found = web_page.table(["position", "nearest pieces"], rows, caption=caption)
    if len(rows) > 24:
        found = folded(f"The nearest pieces of {len(rows)} positions", found, is_open=True)
    tables = [folded(_title(each), table_of(each)) for each in resemblance.tables if each.rows]
    return [found, *tables]


def _piece(neighbor: Neighbor) -> Html:
    near = min(max(neighbor.value, 0.0), 1.0) if math.isfinite(neighbor.value) else 0.0
    return element(
        "span",
        neighbor.piece,
        element("small", f"{neighbor.value:.2f}"),
        class_="piece",
        style=f"--near: {near:.3f}",
    )


def _title(table: Table) -> Html:
    first, colon, rest = table.title.partition(":" if ":" in table.title else ";")
    return joined([first, element("small", f" {rest.strip()}")]) if colon else markup(first)


def table_of(table: Table) -> Html:
    """Returns a report's table as the page's."""
    return web_page.table(table.columns, table.rows)


def _provenance(run: Run) -> list[Any]:
    versions = dict(run.versions)
    packages = versions.pop("packages", None)
    resumed = versions.pop("resumed_with", None) or []
    numbers = {
        name.replace("_", " "): _plain(value)
        for name, value in run.summary.items()
        if name not in _TOLD and value is not None
    }
    about = {name.replace("_", " "): _plain(value) for name, value in versions.items()}
    if resumed:
        about["resumed with"] = _plain(resumed)
    hashes = {
        f"hash of {name.removeprefix(_HASH)}": str(value)
        for name, value in run.settings.items()
        if name.startswith(_HASH)
    }
    hashes |= {name: str(value) for name, value in run.trained_for.items()}
    hashes |= {f"SHA-256 of {name}": value for name, value in run.hashes.items()}
    listed = packages.items() if isinstance(packages, Mapping) else ()
    return [
        named_values(about),
        named_values(hashes) if hashes else Html(),
        folded("Packages", named_values({str(name): str(version) for name, version in listed})),
        folded("What the run recorded of itself", named_values(numbers)),
    ]


def _plain(value: Any) -> str:
    """A recorded value in words: lists and objects without their brackets."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or web_page.NOTHING
    return number(value)
