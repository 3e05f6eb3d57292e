"""A page's elements: what is escaped, how numbers are shown, and that the page loads nothing."""

import base64
import hashlib
import re

import pytest

from prompt_tuning.analysis.web_page import (
    MARK,
    Html,
    Sorted,
    cards,
    code,
    duration,
    element,
    folded,
    named_values,
    number,
    page,
    table,
)

HOSTILE = "</pre><script>alert('1')</script>\"&"
SAFE = "&lt;/pre&gt;&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&quot;&amp;"


@pytest.mark.parametrize(
    "made",
    [
        element("p", HOSTILE),
        element("p", title=HOSTILE),
        code(HOSTILE),
        table([HOSTILE], [["x"]]),
        table(["x"], [[HOSTILE]], sortable=True),
        table(["x"], [[Sorted(HOSTILE, 1)]]),
        table(["x"], [[Sorted("x", HOSTILE)]]),
        table(["x"], [], caption=HOSTILE),
        named_values({HOSTILE: "x"}),
        named_values({"x": HOSTILE}),
        cards({"x": (HOSTILE, "x")}),
        folded(HOSTILE, "x"),
        Html(page(HOSTILE, kind="x", remark="x", parts={}).partition("<style>")[0]),
        Html(page("x", kind="x", remark=HOSTILE, parts={}).partition("</style>")[2]),
        Html(page("x", kind="x", remark="x", parts={"x": [HOSTILE]}).partition("</style>")[2]),
    ],
)
def test_whatever_is_no_html_is_escaped(made):
    assert SAFE in made
    assert "<script>alert" not in made


def test_html_stays_html():
    assert element("p", element("b", "x"), class_="y") == '<p class="y"><b>x</b></p>'


def test_numbers_are_shown_for_people_and_sorted_whole():
    shown = [number(value) for value in (1280, 0.98249, 0.00003, 61234.5, None, True, "x")]
    assert shown == ["1,280", "0.982", "3.00e-05", "61,234.5", "-", "True", "x"]
    assert number(float("nan")) == "nan"
    assert [duration(s) for s in (3.25, 78.2, 7384, None)] == [
        "3.2 s",
        "1 min 18 s",
        "2 h 3 min",
        "-",
    ]
    assert 'data-key="0.98249">0.982<' in table(["score"], [[0.98249]])


def test_a_page_allows_its_own_script_and_nothing_else():
    text = page("x", kind="run", remark="", parts={"Part": ["content"]})
    assert text.startswith("<!doctype html>") and MARK in text[:400]
    assert '<section id="part"><h2>Part</h2>content</section>' in text and 'href="#part"' in text
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
    }
