"""Charts inside a page: where points are, what is told of them, and odd numbers."""

import re
import xml.etree.ElementTree

import pytest

from prompt_tuning.analysis.figures import COLORS
from prompt_tuning.pages.charts import Line, line_chart, sparkline

SVG = "{http://www.w3.org/2000/svg}"


def dots(chart):
    """Where the dots of a chart are, and their tooltips."""
    svg = chart[chart.index("<svg") : chart.index("</svg>") + len("</svg>")]
    return [
        (float(used.attrib["x"]), float(used.attrib["y"]), each.findtext(f"{SVG}title"))
        for each in xml.etree.ElementTree.fromstring(svg).iter(f"{SVG}g")
        if each.attrib.get("class") == "dot"
        for used in each.iter(f"{SVG}use")
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.5, 0.5), (3, 27), (-1, 2e7)])
def test_ticks_are_round_and_reach_around(low, high):
    chart = line_chart([Line(name="a", points=[(0, low), (1, high)])], title="t", xlabel="x")
    found = [float(text.replace(",", "").replace("\u2212", "-")) for text in heights(chart)]
    assert found[0] <= low and found[-1] >= high and 3 <= len(found) <= 8


def heights(chart):
    """The numbers along the vertical axis, from below."""
    axis = chart.partition('<g id="matplotlib.axis_2">')[2].partition('<g id="patch')[0]
    return re.findall(r"<text[^>]*>([^<]*)</text>", axis)


def test_higher_values_are_higher_and_dots_tell_them():
    line = Line(name="a <b>", points=[(0, 0.25), (10, 0.5), (20, 1.0)])
    chart = line_chart([line], title="score", xlabel="step", mark=(20, 1.0, "best"))
    xs, ys, told = zip(*dots(chart), strict=True)
    assert xs == tuple(sorted(xs)) and xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert (ys[0] - ys[1]) * 2 == pytest.approx(ys[1] - ys[2], abs=0.2)
    assert told[2] == "a <b>, 20: 1.000" and "<b>" not in chart
    assert ">best</text>" in chart and "legend" not in chart, "one line has no legend"


def test_a_chart_has_the_colors_of_its_page():
    lines = [Line(name="a", points=[(0, 1)]), Line(name="b", points=[(0, 2)])]
    chart = line_chart(lines, title="t", xlabel="x", references=[("r", 1.5)])
    assert "var(--s0)" in chart and "var(--s1)" in chart and "var(--quiet)" in chart
    assert not any(color in chart for color in COLORS) and "<style" not in chart
    assert line_chart(lines, title="t", xlabel="x", references=[("r", 1.5)]) == chart


def test_deviations_are_cut_off_at_the_end_of_the_axis():
    line = Line(name="a", points=[(0, 0.5), (1, 0.9)], spread=[0.1, 0.3])
    whole = line_chart([line], title="t", xlabel="x", labels=["1", "5"])
    cut = line_chart([line], title="t", xlabel="x", labels=["1", "5"], span=(0.0, 1.0))
    assert heights(whole)[-1] == "1.2" and heights(cut)[-1] == "1"
    assert dots(cut)[1][2] == "a, 5: 0.900 ± 0.300"


def test_long_names_that_begin_alike_are_told_by_their_ends():
    line = Line(name="a", points=[(place, 0.5) for place in range(5)])
    labels = [f"tinyworld_{size}" for size in ("tiny", "mini", "small", "base", "large")]
    chart = line_chart([line], title="t", xlabel="x", labels=labels)
    assert "<title>tinyworld_mini</title>" in chart and ">mini</text>" in chart and "…" not in chart
    odd = line_chart([line], title="t", xlabel="x", labels=["one_very_long_name", *"abcd"])
    assert "…" in odd and ">b</text>" in odd


def test_what_is_not_finite_is_left_out():
    line = Line(name="a", points=[(0, float("nan")), (1, 0.5), (2, float("inf"))])
    assert len(dots(line_chart([line], title="t", xlabel="x"))) == 1
    nothing = line_chart([Line(name="a", points=[(0, float("nan"))])], title="t", xlabel="x")
    assert "No value is finite" in nothing
    assert sparkline([(0, float("nan")), (1, 0.5)]) == ""
    assert "from 0.250 to 0.500, at most 0.750" in sparkline([(0, 0.25), (1, 0.75), (2, 0.5)])


def test_many_lines_and_many_points_stay_readable():
    lines = [Line(name=f"line{i}", points=[(x, i) for x in range(5000)]) for i in range(10)]
    chart = line_chart(lines, title="t", xlabel="x")
    assert len(chart) < 200_000 and not dots(chart)
    assert chart.count("<li>") == 10 and chart.count("border-top-style: dashed") == 2
