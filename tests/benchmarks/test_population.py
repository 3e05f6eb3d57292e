"""The population's program does no needless arithmetic, and the benchmark runs, small."""

import importlib.util
import json

import pytest


@pytest.fixture(scope="module")
def bench(checkout):
    path = checkout / "benchmarks" / "population.py"
    spec = importlib.util.spec_from_file_location("population_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_benchmark_runs_and_reports(bench, tmp_path, capsys):
    path = tmp_path / "results" / "population.json"
    bench.main(["--quick", "--rounds=2", f"--output={path}"])
    result = json.loads(path.read_text())
    assert [row["members"] for row in result["rows"]] == [1, 4]
    for row in result["rows"]:
        # One product for all members: no weight's gradient, and nothing done twice.
        assert 1.0 < row["xla_over_minimum"] < 1.1
        assert row["fraction_of_limit"] > 0
        assert row["ratio"] > 0
    printed = capsys.readouterr()
    assert "limit:" in printed.out and "K =  4, round 2 of 2" in printed.err
