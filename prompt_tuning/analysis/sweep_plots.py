"""Figures of a sweep's results, in the paper's style: mean scores with standard deviations.

Rows come from `prompt_tuning.sweeps.results.read_rows`.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prompt_tuning.analysis.figures import COLORS, QUIET, REFERENCE, new_axes, new_figure, save
from prompt_tuning.analysis.trends import GapTrend
from prompt_tuning.errors import UserError

Row = Mapping[str, Any]


def macro_scores(
    rows: Sequence[Row], *, by: Sequence[str], over: str = "task", seed: str = "SEED"
) -> list[Row]:
    """Returns the mean over tasks for each seed, the macro score of the paper's figures.

    Args:
      rows: one per run and task.
      by: the columns that distinguish settings.
      over: the column to average over within a seed.
      seed: the column that distinguishes repetitions.

    Raises:
      UserError: a setting lacks a task that another has.
    """
    groups: dict[tuple[Any, ...], dict[Any, float]] = {}
    for row in rows:
        key = (*(row[name] for name in by), row[seed])
        groups.setdefault(key, {})[row[over]] = float(row["score"])
    everything = set().union(*groups.values())
    for key, found in groups.items():
        if missing := sorted(everything - set(found)):
            settings = ", ".join(f"{n}={v}" for n, v in zip((*by, seed), key, strict=True))
            raise UserError(
                f"The results of {settings} lack {', '.join(map(str, missing))}; finish the sweep "
                "first."
            )
    return [
        {**dict(zip((*by, seed), key, strict=True)), "score": statistics.fmean(found.values())}
        for key, found in groups.items()
    ]


def plot_means(
    rows: Sequence[Row],
    path: Path,
    *,
    x: str,
    line: str,
    order: Sequence[Any],
    xlabel: str,
    title: str,
    guessing: float | None = None,
) -> Path:
    """Draws the mean score with its standard deviation over seeds, evenly spaced along `x`.

    Args:
      rows: scores, a row per seed.
      path: of the PNG.
      x: the column of the x axis.
      line: the column with a line per value.
      order: the values of `x`, from left to right.
      xlabel: label of the x axis.
      title: of the figure.
      guessing: the score of guessing, drawn as a dashed line.
    """
    figure, axes = _new(title)
    places = {value: place for place, value in enumerate(order)}
    for name in sorted({row[line] for row in rows}, key=str):
        xs, means, spread = _means(rows, line, name, lambda row: places[row[x]])
        axes.errorbar(xs, means, yerr=spread, marker="o", capsize=3, label=str(name))
    if guessing is not None:
        axes.axhline(guessing, **REFERENCE, label="guessing")
    axes.set_xticks(range(len(order)), [str(value) for value in order])
    axes.set_xlabel(xlabel)
    return _save(figure, axes, path)


def plot_bars(
    rows: Sequence[Row], path: Path, *, x: str, bar: str, xlabel: str, title: str
) -> Path:
    """Draws mean scores with their standard deviation as grouped bars.

    Args:
      rows: scores, a row per seed.
      path: of the PNG.
      x: the column with a group per value, in the order of the rows.
      bar: the column with a bar per value.
      xlabel: label of the x axis.
      title: of the figure.
    """
    figure, axes = _new(title)
    places = {value: place for place, value in enumerate(dict.fromkeys(row[x] for row in rows))}
    names = sorted({row[bar] for row in rows}, key=str)
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        xs, means, spread = _means(rows, bar, name, lambda row: places[row[x]])
        shifted = [each + (number - (len(names) - 1) / 2) * width for each in xs]
        axes.bar(shifted, means, width * 0.95, label=str(name))
        if any(spread):
            axes.errorbar(shifted, means, yerr=spread, fmt="none", ecolor="black", capsize=3)
    axes.set_xticks(range(len(places)), [str(value) for value in places])
    axes.set_xlabel(xlabel)
    # Below the axes: bars leave no room for a legend.
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
    return _save(figure, axes, path)


def plot_scale_curve(
    rows: Sequence[Row],
    path: Path,
    *,
    parameters: Mapping[str, int],
    methods: Sequence[str],
    title: str,
    reference: Sequence[Row] = (),
    gap: tuple[Sequence[int], GapTrend] | None = None,
) -> Path:
    """Draws scores against the model's size on a logarithmic axis, like the paper's Figure 1.

    Args:
      rows: scores with `model` and `method`, a row per seed.
      path: of the PNG.
      parameters: number of parameters by model.
      methods: the lines, in the order of the legend; those without scores are omitted.
      title: of the figure.
      reference: published scores of some models, with `model`, `method`, `score` from 0 to 1 and
        `verified`; unverified points are hollow.
      gap: numbers of parameters, and the gap at each, for a panel below.
    """
    figure = new_figure(6.4, 4.2 if gap is None else 6.2)
    panels = new_axes(figure, 1 if gap is None else 2, sharex=True, **_PANELS if gap else {})
    axes, *below = np.ravel(panels)
    axes.set_title(title, loc="left", fontsize=10)
    colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(methods)}
    for name in methods:
        xs, means, spread = _means(rows, "method", name, lambda row: parameters[row["model"]])
        if xs:
            style = {"color": colors[name], "marker": "o", "capsize": 3, "label": name}
            axes.errorbar(xs, means, yerr=spread, **style)
    for row in reference:
        if row["model"] in parameters:
            color = colors.get(row["method"], QUIET)
            axes.plot(
                parameters[row["model"]],
                row["score"],
                marker="D",
                color=color,
                markerfacecolor=color if row["verified"] else "none",
                linestyle="none",
                label=f"{row['method']}, the paper{'' if row['verified'] else ' (unverified)'}",
            )
    if gap is not None:
        _draw_gap(below[0], *gap)
    drawn = sorted({parameters[row["model"]] for row in rows})
    lowest = below[0] if below else axes
    axes.set_xscale("log")
    lowest.set_xticks(drawn, [_short(number) for number in drawn])
    lowest.set_xticks([], minor=True)
    lowest.set_xlabel("parameters of the model")
    return _save(figure, axes, path)


_PANELS = {"height_ratios": (2, 1)}


def _draw_gap(axes: Any, sizes: Sequence[int], trend: GapTrend) -> None:
    """Draws the gap at each size with its interval, and the line of the trend."""
    ends = np.asarray(trend.gap_intervals).T
    spread = np.abs(ends - np.asarray(trend.gaps))
    style = {"color": COLORS[0], "marker": "o", "capsize": 3, "linestyle": "none"}
    axes.errorbar(sizes, trend.gaps, yerr=spread, **style)
    decades = np.log10(sizes)
    line = np.mean(trend.gaps) + trend.slope * (decades - decades.mean())
    low, high = trend.slope_interval
    axes.plot(sizes, line, color=COLORS[0], linewidth=1)
    label = f"Slope {trend.slope:+.2f} per tenfold size (95%: {low:+.2f} to {high:+.2f})"
    axes.set_title(label, loc="left", fontsize=10)
    axes.axhline(0.0, **REFERENCE)
    axes.set_ylabel("model tuning minus\nprompt tuning")


def plot_shares(rows: Sequence[Row], path: Path, *, methods: Mapping[str, str]) -> Path:
    """Draws each method's share of trainable parameters by model size, like the paper's Figure 4.

    Args:
      rows: with `method`, `frozen_parameters` and `percent`, the trainable share.
      path: of the PNG.
      methods: methods to draw -> their names in the legend.
    """
    figure, axes = _new("")
    for method, label in methods.items():
        of_method = [row for row in rows if row["method"] == method]
        xs = [row["frozen_parameters"] for row in of_method]
        axes.plot(xs, [row["percent"] for row in of_method], marker="o", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("parameters of the model")
    axes.set_ylabel("trained, % of the model's parameters")
    figure.legend(loc="outside right upper", frameon=False)
    return save(figure, path)


def _new(title: str) -> tuple[Any, Any]:
    figure = new_figure(6.4, 4.2)
    axes = new_axes(figure)
    axes.set_title(title, loc="left", fontsize=10)
    return figure, axes


def _short(number: int) -> str:
    """Formats a number of parameters with three digits: 936k, 4.97M, 11.3B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)


def _means(
    rows: Sequence[Row], column: str, value: Any, place: Callable[[Row], int]
) -> tuple[list[int], list[float], list[float]]:
    """Returns the places, means and deviations of the rows with this value in `column`."""
    at: dict[int, list[float]] = {}
    for row in rows:
        if row[column] == value:
            at.setdefault(place(row), []).append(row["score"])
    xs = sorted(at)
    spread = [statistics.stdev(at[x]) if len(at[x]) > 1 else 0.0 for x in xs]
    return xs, [statistics.fmean(at[x]) for x in xs], spread


def _save(figure: Any, axes: Any, path: Path) -> Path:
    axes.set_ylabel("score")
    axes.set_ylim(0, 1.03)
    if not figure.legends:
        axes.legend(frameon=False)
    return save(figure, path)
