"""The page on one run: its score, curves, metrics, the prompt's nearest neighbors, provenance.

`training/run_folder.py` describes the folders of runs and populations.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from prompt_tuning.analysis.class_scores import class_scores, is_right, wrong_answers
from prompt_tuning.analysis.neighbors import Neighbor
from prompt_tuning.analysis.tables import Table
from prompt_tuning.pages.charts import Line, line_chart, sparkline
from prompt_tuning.pages.web_page import NOTHING, duration, number, render, run_name, setting

Row = Mapping[str, Any]

_EVAL = "eval/"
SCORE = f"{_EVAL}score"
"""The development score, in the rows of `metrics.jsonl`."""

_WINDOWS = 60
_MOST_TASKS = 8
_MOST_WRONG = 100
# Values of the summary that are shown elsewhere or formatted separately.
_SHOWN = ("task", "model", "score", "metrics", "members", "member", "best")
_HASH = "contents of "


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberContents:
    """A member of a population: its name, its entry in the population's summary, its rows."""

    name: str
    summary: Mapping[str, Any]
    rows: Sequence[Row]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunContents:
    """The contents of a run's folder.

    Attributes:
      folder: its path.
      summary: from summary.json.
      rows: from metrics.jsonl; for a population, those of the best member.
      settings: from settings.json.
      versions: from versions.json.
      config: from config.gin.
      hashes: of output files, by name.
      trained_for: metadata of the prompt's file.
      members: of a population.
      answers: predictions with their targets, by split or file name.
    """

    folder: str
    summary: Mapping[str, Any]
    rows: Sequence[Row]
    settings: Mapping[str, Any]
    versions: Mapping[str, Any]
    config: str
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    trained_for: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    members: Sequence[MemberContents] = ()
    answers: Mapping[str, Sequence[Row]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resemblance:
    """Results on a prompt's nearest neighbors.

    Attributes:
      neighbors: the nearest pieces of each position.
      tables: further results.
    """

    neighbors: Sequence[Sequence[Neighbor]]
    tables: Sequence[Table]


def run_page(run: RunContents, resemblance: Resemblance | str) -> str:
    """Returns the page.

    Args:
      run: the run.
      resemblance: of its prompt, or the reason why it isn't available.
    """
    task, model = (run.summary.get(name) for name in ("task", "model"))
    parts = ["Metrics", "Answers", "Prompt", "Configuration", "Provenance"]
    pieces = [] if isinstance(resemblance, str) else resemblance.neighbors
    packages = run.versions.get("packages")
    return render(
        "run.html",
        title=f"{task} on {model}" if task and model else run.folder,
        kind=f"population of {len(run.members)}" if run.members else "run",
        remark=run.folder,
        sections=["Learning curves", *(["Members"] if run.members else []), *parts],
        headline=_headline(run),
        charts=_charts(run),
        members=_members(run) if run.members else None,
        metrics=_metrics(run),
        evaluations=_evaluations(run.rows),
        answers=_answers(run.answers),
        resemblance=resemblance,
        pieces=[[i, _pieces(nearest)] for i, nearest in enumerate(pieces)],
        config=run.config,
        about=_plain_values(run.versions, except_for=("packages",)),
        hashes=_hashes(run),
        packages=packages if isinstance(packages, Mapping) else {},
        recorded=_plain_values(run.summary, except_for=_SHOWN),
    )


def scores(rows: Sequence[Row], key: str = SCORE) -> list[tuple[float, float]]:
    """Returns the steps at which `key` was measured, in order, and its values.

    If a step has several rows, as in a resumed run, the last one counts. Non-finite values are
    omitted.
    """
    by_step = {float(row["step"]): float(row[key]) for row in rows if key in row}
    return sorted(point for point in by_step.items() if all(map(math.isfinite, point)))


def _headline(run: RunContents) -> dict[str, tuple[Any, Any]]:
    summary = run.summary
    trained, frozen = (summary.get(f"{name}_parameters") for name in ("trained", "frozen"))
    share = NOTHING
    if isinstance(trained, int) and isinstance(frozen, int) and frozen > 0:
        share = f"{100 * trained / frozen:.3g} %"
    metrics = " and ".join(str(name) for name in summary.get("metrics") or ())
    start = next((value for step, value in scores(run.rows) if step == 0), None)
    speed = summary.get("examples_per_second")
    ended = "stopped early" if summary.get("stopped_early") else "trained to its last step"
    timing = "training and evaluation"
    if isinstance(speed, int | float):
        timing = f"{speed:,.0f} examples a second"
    values = {
        "development score": (number(summary.get("score")), metrics or "of the best evaluation"),
        "best step": (
            number(summary.get("best_step")),
            f"of {number(summary.get('steps'))}; {summary.get('ended') or ended}",
        ),
        "untrained": (number(start), "score at step 0"),
        "trained parameters": (number(trained), f"{share} of {number(frozen)} frozen"),
        "time": (duration(summary.get("wall_seconds")), timing),
    }
    if start is None:
        del values["untrained"]
    if run.members:
        values["best of"] = (f"{len(run.members)}", str(summary.get("best", "")))
    return values


def _charts(run: RunContents) -> list[Markup]:
    if not scores(run.rows):
        return []
    charts = [_score_chart(run)]
    whose = " of the best" if run.members else ""
    for key, name in (("loss", "Training loss"), ("gradient_norm", "Gradient norm")):
        points = scores(run.rows, key)
        if len(points) > 1:
            charts.append(_smoothed_chart(points, f"{name}{whose}"))
    return charts


def _score_chart(run: RunContents) -> Markup:
    """Charts the score of a run, of a mixture's tasks, or of a population's members."""
    points = scores(run.rows)
    lines = [Line(name="score", points=points)]
    if run.members:
        lines = [
            *(Line(name=m.name, points=scores(m.rows), faint=True, color=7) for m in run.members),
            Line(name=f"{run.summary.get('best')} (the best)", points=points, color=0),
        ]
    else:
        # The score of one task with one metric is that metric; a mixture's is a mean.
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


def _smoothed_chart(points: Sequence[tuple[float, float]], title: str) -> Markup:
    """Charts every value as a faint line, and means over windows as a strong one."""
    lines = [Line(name=title, points=points, color=1)]
    if len(points) > _WINDOWS:
        windows = np.array_split(np.array(points), _WINDOWS)
        means = [tuple(map(float, window.mean(axis=0))) for window in windows]
        lines = [
            Line(name="every value", points=points, color=1, faint=True),
            Line(name="mean", points=[(x, y) for x, y in means], color=1),
        ]
    return line_chart(
        lines, title=title, xlabel="training step", ylabel=title.lower(), span=(0.0, 0.0)
    )


def _eval_keys(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row if key.startswith(_EVAL)))


def _metric_keys(rows: Sequence[Row]) -> list[str]:
    """Returns the keys of the metrics, and of the score unless it is one of them."""
    keys = [key for key in _eval_keys(rows) if key != SCORE]
    same = any(scores(rows, key) == scores(rows) for key in keys)
    return keys if same else [*keys, SCORE]


def _metrics(run: RunContents) -> Table:
    best = run.summary.get("best_step")
    evaluations = [row for row in run.rows if SCORE in row]

    def last_at(step: Any) -> Row:
        return next((row for row in reversed(evaluations) if row["step"] == step), {})

    moments = {
        f"at the best step, {number(best)}": last_at(best),
        "at the last evaluation": evaluations[-1] if evaluations else {},
    }
    if untrained := last_at(0):
        moments = {"untrained": untrained, **moments}
    return Table(
        title="",
        columns=["metric", *moments],
        rows=[
            [key.removeprefix(_EVAL), *(row.get(key) for row in moments.values())]
            for key in _metric_keys(run.rows)
        ],
    )


def _evaluations(rows: Sequence[Row]) -> Table:
    keys = _metric_keys(rows)
    return Table(
        title="",
        columns=["step", *(key.removeprefix(_EVAL) for key in keys), "seconds"],
        rows=[
            [row["step"], *(row.get(key) for key in keys), row.get("seconds")]
            for row in rows
            if SCORE in row
        ],
    )


def _members(run: RunContents) -> dict[str, Any]:
    found = [member.summary.get("settings") for member in run.members]
    settings = [each if isinstance(each, Mapping) else {} for each in found]
    names = list(dict.fromkeys(name for each in settings for name in each))
    rows = []
    for member, own in zip(run.members, settings, strict=True):
        mark = "★ " if member.name == run.summary.get("best") else ""
        rows.append(
            [
                run_name(f"{mark}{member.name}"),
                *(setting(own.get(name, NOTHING)) for name in names),
                member.summary.get("score"),
                sparkline(scores(member.rows)),
                member.summary.get("best_step"),
                member.summary.get("steps"),
                str(member.summary.get("ended", "")),
            ]
        )
    columns = ["member", *names, "score", "curve", "best step", "steps", "how it ended"]
    return {"columns": columns, "rows": rows}


def _answers(answers: Mapping[str, Sequence[Row]]) -> list[dict[str, Any]]:
    """Returns the scores and wrong answers of each task in each file of answers."""
    found = []
    for name, rows in answers.items():
        for task in dict.fromkeys(str(row.get("task", "")) for row in rows):
            own = [row for row in rows if str(row.get("task", "")) == task]
            wrong, scored = wrong_answers(own), class_scores(own)
            found.append(
                {
                    "title": f"{task}, {name}" if task else name,
                    "right": sum(map(is_right, own)),
                    "total": len(own),
                    "tables": [scored.scores_table, scored.confusion_table] if scored else [],
                    "wrong": len(wrong),
                    "shown": _wrong(wrong[:_MOST_WRONG]),
                }
            )
    return found


def _wrong(rows: Sequence[Row]) -> Table:
    apart = ("task", "targets", "prediction")
    others = dict.fromkeys(name for row in rows for name in row if name not in apart)
    # Show only the inputs if there are any; they are more informative than other columns.
    names = ["inputs"] if "inputs" in others else list(others)
    return Table(
        title="",
        columns=[*names, "target", "answer"],
        rows=[[_text(row.get(name)) for name in (*names, *apart[1:])] for row in rows],
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "; ".join(map(_text, value))
    return "" if value is None else str(value)


def _pieces(nearest: Sequence[Neighbor]) -> Markup:
    parts = [
        Markup('<span class="piece" style="--near: {:.3f}">{}<small>{:.2f}</small></span>').format(
            min(max(each.value, 0.0), 1.0) if math.isfinite(each.value) else 0.0,
            each.piece,
            each.value,
        )
        for each in nearest
    ]
    return Markup('<div class="pieces">{}</div>').format(Markup().join(parts))


def _hashes(run: RunContents) -> dict[str, str]:
    hashes = {
        f"hash of {name.removeprefix(_HASH)}": str(value)
        for name, value in run.settings.items()
        if name.startswith(_HASH)
    }
    hashes |= {name: str(value) for name, value in run.trained_for.items()}
    return hashes | {f"SHA-256 of {name}": value for name, value in run.hashes.items()}


def _plain_values(values: Mapping[str, Any], except_for: Sequence[str]) -> dict[str, str]:
    return {
        name.replace("_", " "): _plain(value)
        for name, value in values.items()
        if name not in except_for and value is not None and value != []
    }


def _plain(value: Any) -> str:
    """Formats a recorded value; lists and objects without their brackets."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_plain(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or NOTHING
    return number(value)
