"""The programs compiled for accelerators without them, and the page of their results."""

import importlib
import json

import pytest

from prompt_tuning.methods.registry import METHODS
from prompt_tuning.models.config import get_config
from prompt_tuning.planning.compilers import missing

MACHINES = {"v5e": {"data": 4}, "H100": {}}
SMALL = {"layers": 1, "batch": 8, "source": 64, "prompt": 20}
HANDFUL = [
    {},
    {"method": "LoRA", "quantization": "nf4", "remat": True, "parts": 2},
    {"members": 4},
    {"kind": "greedy"},
]


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("accelerators")


@pytest.fixture(scope="module")
def page():
    return importlib.import_module("accelerators_page")


def test_every_method_is_compiled(bench):
    config = get_config("t5_1_1_small")
    assert {type(make(config)) for make in bench.METHODS.values()} == set(METHODS.values())


def test_a_result_is_named_by_what_its_program_is(bench):
    case = bench.Case(machine="v5e", data=4, kind="rank")
    assert case.key == "machine=v5e kind=rank data=4"
    assert bench.Case(**case.fields) == case


def test_the_page_is_that_of_the_results(bench, page):
    results = json.loads(bench.RESULTS.read_text(encoding="utf-8"))
    assert page.page(results) == page.PAGE.read_text(encoding="utf-8")


def result(**numbers):
    return {
        "case": {},
        "arguments": 1e9,
        "outputs": 0,
        "temporaries": 1e9,
        "seconds": 1.0,
        "least_products": 1e12,
        "moved": 1e9,
        "compiler": "one",
        "commit": "abc",
        **numbers,
    }


def test_targets_are_met_or_missed(bench, page):
    first, *_, last = page.TARGETS
    clock = first.case.accelerator.clock
    results = {
        first.case.key: result(seconds=first.most * 1e6 / clock / 2),
        last.case.key: result(temporaries=2 * last.most * 1e9 - 1e9),
    }
    lines = page.targets(results).split("\n")
    assert lines[2].endswith(f"| {first.most / 2:.3g} | met | abc |")
    assert "| missed, 2.00 times the target | abc |" in lines[-1]
    assert "not compiled" in lines[3]


def test_a_refusal_is_told_in_its_cell(bench, page):
    case = bench.Case(machine="v5e")
    refused = {"refused": "The compiler refuses it: 17G of 16G.", "commit": "abc"}
    assert page.found(case, {case.key: refused}).cell == "17G of 16G. (abc)"


def test_populations_are_compared_with_one(bench, page):
    one, several, *_ = bench.POPULATIONS
    results = {
        one.key: result(seconds=1e-3),
        several.key: result(seconds=several.members * 0.5e-3),
    }
    assert "0.50 (0.50)" in page.populations(results)
    assert "0.50" in page.conclusion(results)


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_a_handful_compiles(bench, machine):
    cases = [
        bench.Case(machine=machine, **{**SMALL, **MACHINES[machine], **fields})
        for fields in HANDFUL
    ]
    if reason := missing(cases[0].accelerator):
        pytest.skip(reason)
    found = dict(bench.compile_apart(cases))
    assert list(found) == cases
    for case, each in found.items():
        assert "temporaries" in each, f"{case.key}: {bench.summary(each)}"
        assert each["seconds"] > 0
        # The token embedding in bfloat16 is among the arguments.
        assert each["arguments"] > 2 * case.config.vocab_size * case.config.embed_dim
        assert (each["cycles"] > 0) == (machine == "v5e")
