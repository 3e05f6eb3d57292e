"""The fitted exponents of the benchmark of scaling, and the benchmark itself, small."""

import importlib
import json

import pytest


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("scaling")


def test_the_exponent_of_a_power_law(bench):
    sizes = [1.0, 2.0, 5.0, 9.0]
    assert bench.exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_a_series_varies_one_thing(bench):
    found = bench.series(bench.FULL, quick=False)
    widths = [setting.config.embed_dim for _, setting in found["model"]]
    assert widths == [256, 512, 768, 1024]
    # Products, and so the weights, grow with the square of the width.
    sizes = [size for size, _ in found["model"]]
    assert 3.8 < sizes[1] / sizes[0] < 4.2 and 3.8 < sizes[3] / sizes[1] < 4.2
    assert {setting.source for _, setting in found["prompt"]} == {bench.FULL.source}
    assert {setting.prompt for _, setting in found["input"]} == {bench.FULL.prompt}
    assert bench.FULL.config in [setting.config for _, setting in found["input"]]


@pytest.mark.slow
def test_the_benchmark_runs_and_reports(bench, tmp_path, capsys):
    path = tmp_path / "scaling.json"
    bench.main(["--quick", f"--output={path}"])
    result = json.loads(path.read_text())
    assert {len(found["seconds"]) for found in result["series"].values()} == {2}
    assert "exponent of the time" in capsys.readouterr().out
