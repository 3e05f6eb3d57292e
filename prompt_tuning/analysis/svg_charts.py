"""Charts of a web page, as SVG inside it: their colours are the page's, light and dark.

A chart's numbers can be read by pointing at its dots. Pictures for other places than a page are in
`curves.py`, `pictures.py` and `sweep_plots.py`.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from prompt_tuning.analysis.web_page import Html, element, number

Number = int | float
Point = tuple[Number, Number]

_WIDTH, _HEIGHT = 460, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 28, 40
_COLOURS = 8
_DASHES = (None, "6 4", "2 3", "9 3 2 3")
_MOST_DOTS = 60
_MOST_POINTS = 500
_MOST_LABELS = 10
_DODGE = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """Points that belong together.

    Attributes:
      name: in the legend, and where the line is pointed at.
      points: (x, y), in order of x; those that aren't finite are left out.
      spread: the deviation of each point, drawn up and down from it.
      colour: which of the page's colours; None: the place of the line.
      faint: drawn thinly, without dots, and left out of the legend.
    """

    name: str
    points: Sequence[Point]
    spread: Sequence[Number] = ()
    colour: int | None = None
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
) -> Html:
    """Returns lines over a common axis, with a legend if there are several.

    Args:
      lines: what is drawn.
      title: what the numbers are.
      xlabel: what x is.
      ylabel: what y is, written along its axis.
      labels: evenly spaced values of x, whose points have x = 0, 1, ...; none: x is a number, such
        as a step, and begins at 0.
      references: dashed horizontal lines, by name.
      mark: a point to be told of, and what is said.
      span: what the axis reaches over at least; deviations are cut off where it ends. None: it
        reaches over all that is drawn.
    """
    lines = [_finite(line) for line in lines]
    drawn = [point for line in lines for point in line.points]
    if not drawn:
        return element("figure", element("figcaption", title), element("p", "No number is finite."))
    heights = [*(y for _, y in drawn), *(y for _, y in references), *(span or ())]
    if span is None:
        heights += [
            y + sign * deviation
            for line in lines
            for (_, y), deviation in zip(line.points, line.spread, strict=False)
            for sign in (-1, 1)
        ]
    ys = _ticks(min(heights), max(heights))
    xs = [float(i) for i in range(len(labels))] or _ticks(
        min(0.0, *(x for x, _ in drawn)), max(x for x, _ in drawn), whole=True
    )
    room = 0.5 if labels else 0.0
    x0, x1 = xs[0] - room, xs[-1] + room
    scale = _Scale(x0, x1, ys[0], ys[-1])
    names = list(labels) or [_axis_number(x) for x in xs]
    parts = [*_grid(scale, xs, names, ys, xlabel)]
    if ylabel:
        middle = (_TOP + _HEIGHT - _BOTTOM) / 2
        turned = f"rotate(-90 10 {middle:.1f})"
        parts.append(_text(10, middle, ylabel, "middle", transform=turned))
    for name, y in references:
        parts += _reference(scale, name, y)
    strong = [line for line in lines if not line.faint]
    for place, line in enumerate(lines):
        dodge = _dodge(strong.index(line), len(strong)) if labels and line in strong else 0.0
        parts.append(_drawn(line, place, scale, dodge, names if labels else ()))
    if mark is not None:
        parts += _marked(scale, mark)
    svg = element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=title)
    legend = [
        element("li", _sample(line, lines.index(line)), line.name)
        for line in strong
        if len(strong) > 1
    ]
    return element(
        "figure",
        element("figcaption", title),
        element("ul", *legend, class_="legend") if legend else Html(),
        svg,
        class_="chart",
    )


def sparkline(points: Sequence[Point]) -> Html:
    """Returns a line as small as a word; its title tells where it begins, ends and is highest."""
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if len(points) < 2:
        return Html()
    width, height = 84, 22
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], points[-1][0]
    placed = [
        (
            2 + (width - 4) * (x - first) / ((last - first) or 1),
            height - 3 - (height - 6) * (y - low) / ((high - low) or 1),
        )
        for x, y in _thinned(points)
    ]
    told = f"from {number(float(points[0][1]))} to {number(float(points[-1][1]))}, at most "
    return element(
        "svg",
        element("title", told + number(float(high))),
        element("path", d=_path(placed), class_="curve"),
        viewBox=f"0 0 {width} {height}",
        class_="spark s0",
        role="img",
    )


@dataclasses.dataclass(frozen=True)
class _Scale:
    """From values to places in the picture."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: Number) -> float:
        share = (value - self.x0) / ((self.x1 - self.x0) or 1)
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * share

    def y(self, value: Number) -> float:
        share = (value - self.y0) / ((self.y1 - self.y0) or 1)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _finite(line: Line) -> Line:
    kept = [i for i, point in enumerate(line.points) if all(map(math.isfinite, point))]
    spread = [line.spread[i] for i in kept] if line.spread else ()
    return dataclasses.replace(line, points=[line.points[i] for i in kept], spread=spread)


def _ticks(low: Number, high: Number, *, whole: bool = False) -> list[float]:
    """Returns round numbers from at most `low` to at least `high`."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= raw * 0.999)
    if whole:
        step = max(step, 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _axis_number(value: Number) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) >= 1 else f"{value:.6g}"


def _grid(
    scale: _Scale, xs: Sequence[Number], names: Sequence[str], ys: Sequence[Number], xlabel: str
) -> list[Html]:
    parts = []
    for y in ys:
        at = f"{scale.y(y):.1f}"
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(_text(_LEFT - 7, scale.y(y) + 4, _axis_number(y), "end"))
    every = math.ceil(len(xs) / _MOST_LABELS)
    longest = (_WIDTH - _LEFT - _RIGHT) / min(len(xs), _MOST_LABELS) / 6
    start = _alike(names) if max(map(len, names), default=0) > longest else 0
    for i, (x, name) in enumerate(zip(xs, names, strict=True)):
        if i % every == 0:
            rest = name[start:]
            shown = rest if len(rest) <= longest else f"{rest[: max(int(longest) - 1, 3)]}…"
            anchor = "end" if x == scale.x1 and len(name) > 3 else "middle"
            parts.append(_text(scale.x(x), _HEIGHT - _BOTTOM + 16, shown, anchor, title=name))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_text(middle, _HEIGHT - 6, xlabel, "middle"))
    return parts


def _alike(names: Sequence[str]) -> int:
    """Returns how many characters all names begin with, whole words of them: `tinyworld_`."""
    words = [name.split("_")[:-1] for name in names]
    shared = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*words, strict=False))
    return sum(len(each[0]) + 1 for each in shared)


def _text(x: Number, y: Number, text: str, anchor: str, title: str = "", **more: Any) -> Html:
    hint = element("title", title) if title and title != text else Html()
    return element("text", text, hint, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, **more)


def _reference(scale: _Scale, name: str, y: Number) -> list[Html]:
    at = scale.y(y)
    line = element(
        "line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{at:.1f}", y2=f"{at:.1f}", class_="reference"
    )
    return [line, _text(_WIDTH - _RIGHT, at - 5, name, "end")]


def _dodge(place: int, count: int) -> float:
    """Keeps the bars of lines beside each other."""
    return (place - (count - 1) / 2) * min(_DODGE, 36 / count)


def _drawn(line: Line, place: int, scale: _Scale, dodge: float, labels: Sequence[str]) -> Html:
    placed = [(scale.x(x) + dodge, scale.y(y)) for x, y in line.points]
    path = element(
        "path",
        element("title", line.name),
        d=_path(_thinned(placed)),
        class_="curve faint" if line.faint else "curve",
        stroke_dasharray=_dash(place) if line.colour is None else None,
    )
    dots = []
    if not line.faint and len(placed) <= _MOST_DOTS:
        spreads = line.spread or [0.0] * len(placed)
        for (x, y), (value, height), spread in zip(placed, line.points, spreads, strict=True):
            if spread:
                ends = [height - spread, height + spread]
                inside = [min(max(end, scale.y0), scale.y1) for end in ends]
                bar = f"M{x:.1f} {scale.y(inside[0]):.1f}V{scale.y(inside[1]):.1f}"
                # An end that is cut off has no cap.
                kept = [end for end, cut in zip(ends, inside, strict=True) if end == cut]
                caps = "".join(f"M{x - 3:.1f} {scale.y(end):.1f}h6" for end in kept)
                dots.append(element("path", d=bar + caps, class_="bar"))
            where = labels[int(value)] if labels else _axis_number(value)
            told = f"{line.name}, {where}: {number(float(height))}"
            told += f" ± {number(float(spread))}" if spread else ""
            dots.append(
                element(
                    "circle",
                    element("title", told),
                    cx=f"{x:.1f}",
                    cy=f"{y:.1f}",
                    r=3,
                    class_="dot",
                )
            )
    return element("g", path, *dots, class_=_colour(line, place))


def _marked(scale: _Scale, mark: tuple[Number, Number, str]) -> list[Html]:
    x, y, text = mark
    at = scale.x(x), scale.y(y)
    right = at[0] > _WIDTH / 2
    ring = element("circle", cx=f"{at[0]:.1f}", cy=f"{at[1]:.1f}", r=6, class_="best")
    told = _text(at[0], at[1] - 12, text, "end" if right else "start", class_="told")
    return [element("g", ring, told, class_="s0")]


def _colour(line: Line, place: int) -> str:
    return f"s{(place if line.colour is None else line.colour) % _COLOURS}"


def _dash(place: int) -> str | None:
    return _DASHES[place // _COLOURS % len(_DASHES)]


def _sample(line: Line, place: int) -> Html:
    return element(
        "svg",
        element("path", d="M1 5H21", class_="curve", stroke_dasharray=_dash(place)),
        viewBox="0 0 22 10",
        class_=_colour(line, place),
        aria_hidden="true",
    )


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    every = math.ceil(len(points) / _MOST_POINTS)
    return points if every <= 1 else [*points[::every], points[-1]]


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""
