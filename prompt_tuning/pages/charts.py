"""Charts in web pages: SVG from matplotlib, in the page's light and dark colors.

Tooltips on a chart's dots show its values. PNG figures are in `prompt_tuning.analysis`.
"""

import dataclasses
import io
import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from prompt_tuning.analysis.figures import COLORS, GRID, QUIET, REFERENCE, new_axes, new_figure
from prompt_tuning.pages.web_page import number

Number = int | float
Point = tuple[Number, Number]

_DASHES = ("solid", (0, (6, 4)), (0, (2, 3)), (0, (9, 3, 2, 3)))
_MOST_DOTS = 60
_MOST_POINTS = 500
_MOST_LABELS = 10
_LONGEST_LABELS = 60  # characters that fit side by side along the axis
_VARIABLES = {
    **{color: f"var(--s{place})" for place, color in enumerate(COLORS)},
    QUIET: "var(--quiet)",
    GRID: "var(--line)",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a chart.

    Attributes:
      name: in the legend and the tooltip.
      points: (x, y), in order of x; non-finite points are omitted.
      spread: the deviation of each point, drawn as an error bar.
      color: index into `COLORS`; if None, the line's index, with dashes from the ninth line on.
      faint: draw a thin line without dots, and omit it from the legend.
    """

    name: str
    points: Sequence[Point]
    spread: Sequence[Number] = ()
    color: int | None = None
    faint: bool = False


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    xlabel: str,
    ylabel: str = "",
    labels: Sequence[str] = (),
    references: Sequence[tuple[str, Number]] = (),
    mark: tuple[Number, Number, str] | None = None,
    span: tuple[Number, Number] | None = None,
) -> Markup:
    """Returns a line chart, with a legend if there are several lines.

    Args:
      lines: the lines to draw.
      title: of the chart.
      xlabel: label of the x axis.
      ylabel: label of the y axis.
      labels: evenly spaced labels for x = 0, 1, ...; if empty, x is a number, such as a step, and
        its axis begins at 0.
      references: dashed horizontal lines, as (name, y).
      mark: a point to mark, as (x, y, text).
      span: minimum range of the y axis, beyond which error bars are clipped. If None, the axis
        covers everything that is drawn.
    """
    lines = [_finite(line) for line in lines]
    if not any(line.points for line in lines):
        return _FIGURE.format(title, "", Markup("<p>No value is finite.</p>"))
    figure = new_figure(4.6, 2.5)
    axes = new_axes(figure)
    axes.tick_params(length=0, labelcolor=QUIET, labelsize=8.5)
    axes.set_xlabel(xlabel, color=QUIET, fontsize=8.5)
    axes.set_ylabel(ylabel, color=QUIET, fontsize=8.5)
    axes.spines[:].set_color(GRID)
    hints = _Hints()
    strong = [line for line in lines if not line.faint]
    samples = []
    for place, line in enumerate(lines):
        color = (place if line.color is None else line.color) % len(COLORS)
        dash = place // len(COLORS) % len(_DASHES) if line.color is None else 0
        # Shift lines horizontally, so that their dots and error bars don't overlap.
        beside = strong.index(line) - (len(strong) - 1) / 2 if labels and not line.faint else 0.0
        beside *= min(0.08, 0.5 / max(len(strong), 1))
        if line.points:
            _draw(axes, line, COLORS[color], _DASHES[dash], beside, labels, hints)
        if len(strong) > 1 and not line.faint:
            samples.append(_SAMPLE.format(color, "dashed" if dash else "solid", line.name))
    heights = [*(y for _, y in references), *(span or ())]
    for line in lines:
        spread = line.spread if line.spread and span is None else [0.0] * len(line.points)
        for (_, y), deviation in zip(line.points, spread, strict=True):
            heights += [y - deviation, y + deviation]
    low, high = min(heights), max(heights)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5, high + 0.5
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
    axes.set_yticks(ticks)
    axes.set_ylim(ticks[0], ticks[-1])
    axes.yaxis.set_major_formatter("{x:,.6g}")
    if labels:
        _label(axes, labels, hints)
    else:
        xs = [x for line in lines for x, _ in line.points]
        axes.set_xlim(min(0, *xs), max(xs) if max(xs) > min(0, *xs) else 1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.xaxis.set_major_formatter("{x:,.6g}")
    for name, y in references:
        axes.axhline(y, **REFERENCE)
        where = {"xycoords": ("axes fraction", "data"), "xytext": (0, 3), "ha": "right"}
        axes.annotate(name, (1, y), **where, textcoords="offset points", color=QUIET, fontsize=8.5)
    if mark is not None:
        _mark(axes, *mark)
    legend = Markup('<ul class="legend">{}</ul>').format(Markup().join(samples)) if samples else ""
    return _FIGURE.format(title, legend, hints.svg(figure, title))


def sparkline(points: Sequence[Point]) -> Markup:
    """Returns a word-sized line; its title states the first, last and highest values."""
    points = _finite(Line(name="", points=points)).points
    if len(points) < 2:
        return Markup()
    width, height = 84, 22
    xs, ys = zip(*_thinned(points), strict=True)
    across = (width - 4) / ((xs[-1] - xs[0]) or 1)
    up = (height - 6) / ((max(ys) - min(ys)) or 1)
    path = "L".join(
        f"{2 + (x - xs[0]) * across:.1f} {height - 3 - (y - min(ys)) * up:.1f}"
        for x, y in zip(xs, ys, strict=True)
    )
    told = f"from {number(float(ys[0]))} to {number(float(ys[-1]))}, at most "
    return Markup(
        '<svg viewBox="0 0 {} {}" class="spark s0" role="img"><title>{}</title>'
        '<path d="M{}" class="curve"></path></svg>'
    ).format(width, height, told + number(float(max(ys))), path)


_FIGURE = Markup('<figure class="chart"><figcaption>{}</figcaption>{}{}</figure>')
_SAMPLE = Markup('<li><span class="sample s{}" style="border-top-style: {}"></span>{}</li>')


class _Hints:
    """Adds CSS classes and tooltips to the elements of matplotlib's SVG."""

    def __init__(self):
        self._hints: dict[str, Markup] = {}

    def add(self, kind: str, text: str) -> str:
        """Registers a class and a tooltip; returns the id for the SVG element."""
        name = f"hint-{len(self._hints)}-"
        self._hints[name] = Markup('<g class="{}"><title>{}</title>').format(kind, text)
        return name

    def svg(self, figure: Any, title: str) -> Markup:
        """Returns the figure as SVG that uses the page's color variables."""
        file = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "page"}):
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
        text = file.getvalue()
        text = text[text.index("<svg") + len("<svg") :]
        text = re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", "", text, flags=re.DOTALL)
        text = re.sub(r'<g id="(hint-\d+-)">', lambda found: self._hints[found[1]], text)
        text = re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), text)
        return Markup('<svg role="img" aria-label="{}"').format(title) + Markup(text)


def _draw(
    axes: Any,
    line: Line,
    color: str,
    dash: Any,
    beside: float,
    labels: Sequence[str],
    hints: _Hints,
) -> None:
    xs, ys = zip(*((x + beside, y) for x, y in _thinned(line.points)), strict=True)
    gid = hints.add("curve faint" if line.faint else "curve", line.name)
    width = 0.8 if line.faint else 1.6
    axes.plot(xs, ys, color=color, linestyle=dash, linewidth=width, gid=gid)
    if line.faint or len(line.points) > _MOST_DOTS:
        return
    for i, (x, y) in enumerate(line.points):
        spread = line.spread[i] if line.spread else 0.0
        told = f"{line.name}, {labels[int(x)] if labels else format(x, ',.6g')}: {number(float(y))}"
        if spread:
            bar = {"fmt": "none", "ecolor": color, "elinewidth": 1, "capsize": 2}
            axes.errorbar(x + beside, y, yerr=spread, **bar)
            told += f" ± {number(float(spread))}"
        dot = {"marker": "o", "markersize": 4, "clip_on": False, "gid": hints.add("dot", told)}
        axes.plot([x + beside], [y], color=color, **dot)


def _label(axes: Any, labels: Sequence[str], hints: _Hints) -> None:
    """Labels the x axis, without a common prefix of long labels, such as `tinyworld_`."""
    every = math.ceil(len(labels) / _MOST_LABELS)
    longest = max(_LONGEST_LABELS // min(len(labels), _MOST_LABELS), 4)
    start = 0
    if max(map(len, labels)) > longest:
        shared = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*labels, strict=False))
        start = "".join(characters[0] for characters in shared).rfind("_") + 1
    shown = [name[start:] for name in labels]
    shown = [name if len(name) <= longest else f"{name[: longest - 1]}…" for name in shown]
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_xticks(range(0, len(labels), every), shown[::every])
    for text, name in zip(axes.get_xticklabels(), labels[::every], strict=True):
        text.set_gid(hints.add("label", name))


def _mark(axes: Any, x: Number, y: Number, text: str) -> None:
    right = x > sum(axes.get_xlim()) / 2
    style = {"color": COLORS[0], "markerfacecolor": "none", "clip_on": False}
    axes.plot([x], [y], marker="o", markersize=9, **style)
    where = {"xytext": (0, 8), "textcoords": "offset points", "ha": "right" if right else "left"}
    axes.annotate(text, (x, y), **where, color=COLORS[0], fontsize=8.5, fontweight="bold")


def _finite(line: Line) -> Line:
    kept = [i for i, point in enumerate(line.points) if all(map(math.isfinite, point))]
    spread = [line.spread[i] for i in kept] if line.spread else ()
    return dataclasses.replace(line, points=[line.points[i] for i in kept], spread=spread)


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    every = math.ceil(len(points) / _MOST_POINTS)
    return points if every <= 1 else [*points[::every], points[-1]]
