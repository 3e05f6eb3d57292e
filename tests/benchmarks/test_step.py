"""The benchmark of a step, small. What it counts is tested in tests/analysis/test_flops.py."""

import importlib.util
import json

import pytest


@pytest.fixture(scope="module")
def bench(checkout):
    spec = importlib.util.spec_from_file_location("step", checkout / "benchmarks" / "step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_benchmark_runs_and_reports(bench, tmp_path, capsys):
    path = tmp_path / "results" / "step.json"
    bench.main(["--quick", "--steps=3", f"--output={path}"])
    result = json.loads(path.read_text())
    assert result["steps"] == 3 and result["model"] == "quick"
    assert 0 < result["step_seconds_best"] <= result["step_seconds_median"]
    assert 0 < result["fraction_of_peak"] < 1
    printed = capsys.readouterr().out
    assert "XLA / minimum" in printed and f"{result['xla_over_minimum']:.4f}" in printed
