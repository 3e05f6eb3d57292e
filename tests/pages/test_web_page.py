"""Pages: what is escaped, how numbers are shown, and that a page allows no script but its own."""

import base64
import hashlib
import re

import pytest

from prompt_tuning.pages.run_page import RunContents, run_page
from prompt_tuning.pages.web_page import MARK, duration, number, run_name, setting

HOSTILE = "</pre><script>alert('1')</script>\"&"
SAFE = "&lt;/pre&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&#34;&amp;"
ROWS = [{"step": 0, "eval/score": 0.98249}]


def page(**changes):
    parts = {"folder": "x", "summary": {}, "rows": ROWS, "settings": {}, "versions": {}}
    return run_page(RunContents(**{**parts, "config": "", **changes}), "no prompt")


@pytest.mark.parametrize(
    "made",
    [
        page(folder=HOSTILE),
        page(config=HOSTILE),
        page(summary={"ended": HOSTILE}),
        page(summary={HOSTILE: "x"}),
        page(summary={"x": {HOSTILE: [HOSTILE]}}),
        page(rows=[{"step": 0, "eval/score": 0.5, f"eval/{HOSTILE}": 1.0}]),
        page(versions={"packages": {HOSTILE: HOSTILE}}),
        page(hashes={"x": HOSTILE}),
        page(answers={HOSTILE: [{"targets": "a", "prediction": HOSTILE}]}),
        run_name(HOSTILE),
    ],
)
def test_whatever_is_no_markup_is_escaped(made):
    assert SAFE in made
    assert "<script>alert" not in made


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
    assert 'data-key="0.98249">0.982<' in page()
    assert (setting("3e-4").shown, setting("3e-4").key, setting("a")) == ("3e-4", 0.0003, "a")


def test_a_page_allows_its_own_script_and_nothing_else():
    text = page()
    assert text.startswith("<!doctype html>") and MARK in text[:400]
    assert '<section id="learning-curves"><h2>Learning curves</h2>' in text
    assert set(re.findall(r'<a href="#([\w-]+)"', text)) == set(
        re.findall(r'<section id="(.*?)"', text)
    )
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
