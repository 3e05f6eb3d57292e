"""The benchmark of starting, on a tiny model: the second start finds what the first one kept."""

import importlib.util
import json

import pytest

from prompt_tuning.training.startup import PARTS


@pytest.mark.slow  # two fresh processes, the first of which imports TensorFlow
def test_a_warm_start_compiles_nothing_anew(checkout, tmp_path):
    spec = importlib.util.spec_from_file_location("startup", checkout / "benchmarks" / "startup.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    output = tmp_path / "startup.json"
    bench.main(["--quick", "--warm=1", f"--output={output}"])
    found = json.loads(output.read_text())
    cold, (warm,) = found["cold"], found["warm"]
    assert cold["programs_from_cache"] < cold["programs"]
    assert warm["programs_from_cache"] == warm["programs"] > 0
    assert warm["seconds"]["data"] < cold["seconds"]["data"]
    assert warm["cpu_seconds_of_the_process"] < cold["cpu_seconds_of_the_process"]
    for seconds in (cold["seconds"], warm["seconds"]):
        assert sum(seconds[part] for part in PARTS) == pytest.approx(seconds["total"], rel=0.02)
