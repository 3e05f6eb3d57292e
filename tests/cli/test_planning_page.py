"""The plans of docs/planning.md: what the page promises, and what its commands print today."""

import importlib.util
import re

import pytest

from prompt_tuning.cli.parsers import parse
from prompt_tuning.planning.compilers import missing
from prompt_tuning.planning.machines import find_machine


@pytest.fixture(scope="module")
def planning(checkout):
    path = checkout / "benchmarks" / "planning.py"
    spec = importlib.util.spec_from_file_location("planning", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plans(planning) -> list[tuple[list[str], str]]:
    return list(planning.plans(planning.PAGE.read_text(encoding="utf-8")))


NUMBER = re.compile(r"\d[\d,.]*")


def assert_alike(output: str, expected: str) -> None:
    """The same words, and numbers within a twentieth: XLA's versions differ a little."""
    assert NUMBER.sub("#", output) == NUMBER.sub("#", expected)
    for found, wanted in zip(NUMBER.findall(output), NUMBER.findall(expected), strict=True):
        number, other = (float(text.strip(",.").replace(",", "")) for text in (found, wanted))
        assert number == pytest.approx(other, rel=0.05), f"{found} where the page has {wanted}"


def test_the_page_has_the_machines_it_promises(plans):
    text = "\n".join(" ".join(arguments) for arguments, _ in plans)
    for machine in ("v5e-16", "v4-32", "v5p-16", "v6e-8", "h200", "a100-40gb --devices=8"):
        assert re.search(rf"xxl.gin --accelerator={machine}", text), machine
    assert all("in all" in output and "XLA's" in output for _, output in plans)


@pytest.mark.slow
def test_the_plans_are_those_of_the_accelerators_compilers(planning, plans):
    checked = 0
    for arguments, expected in plans:
        args = parse("plan", arguments[1:])
        if not missing(find_machine(args.accelerator, args.devices).accelerator):
            assert_alike(planning.printed(arguments), expected)
            checked += 1
    if not checked:
        pytest.skip("no accelerator's compiler is installed: prompt-tuning[tpu] or [cuda]")


def test_rewriting_keeps_what_another_word_is_in(planning, monkeypatch):
    page = "    prompt-tuning plan --a \\\n        --b\n\n```text\nold\n```\n\nEnd."
    monkeypatch.setattr(planning, "printed", lambda arguments: f"{arguments}\n")
    assert planning.rewritten(page, "small") == page
    assert "```text\n['plan', '--a', '--b']\n```\n\nEnd." in planning.rewritten(page)


def test_a_plan_of_emulated_devices_stays_off_the_page(planning, monkeypatch):
    page = "    prompt-tuning plan --a\n\n```text\nold\n```\n"
    monkeypatch.setattr(planning, "printed", lambda arguments: "compiled for emulated CPU devices")
    assert planning.rewritten(page) == page
