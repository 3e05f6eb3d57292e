"""The benchmark of a step. What it counts is tested in tests/analysis/test_flops.py."""

import importlib.util
import json
import sys

import pytest


@pytest.fixture(scope="module")
def bench(checkout):
    spec = importlib.util.spec_from_file_location("step", checkout / "benchmarks" / "step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def result(bench):
    """A result as `measure` returns it, of round numbers."""

    def of_one(seconds, gigabytes):
        return {"step_seconds_median": seconds, "peak_bytes": gigabytes * 1e9}

    return {
        "model": "m",
        "prompt_length": 1,
        "batch": 1,
        "encoder_length": 1,
        "decoder_length": 1,
        "steps": 1,
        "xla_over_minimum": 1.01,
        "matmul_peak_flops_per_second": {"float32": 1e11},
        "contenders": {
            "ours_float32": {**of_one(1.0, 1.5), "fraction_of_peak": 0.85},
            "ours_in_halves_float32": {**of_one(1.25, 1.0), "fraction_of_peak": 0.7},
            "peft_float32": of_one(2.0, 2.0),
        },
    }


def test_ratios_are_held_against_the_targets(bench):
    _, rows = bench.report(result(bench))
    found = {row["name"]: (row["value"], row["met"]) for row in rows}
    assert found["ours_float32: time over PEFT's"] == (0.5, False)
    assert found["ours_float32: peak memory over PEFT's"] == (0.75, False)
    assert found["ours_float32: share of that peak"] == (0.85, True)
    assert found["ours_in_halves_float32: peak memory over PEFT's"] == (0.5, True)
    assert found["XLA's FLOPs / minimum"] == (1.01, True)


def test_bfloat16_is_run_where_it_pays(bench, monkeypatch):
    for dtype, names in [
        ("float32", ["float32"]),
        ("bfloat16", ["float32", "bfloat16"]),
    ]:
        monkeypatch.setattr(bench, "fastest_matmul_dtype", lambda platform, dtype=dtype: dtype)
        named = [c.name for c in bench.entrants(bench.QUICK, "python")]
        ours = ("ours", "ours_in_halves")
        assert named == [f"{who}_{name}" for name in names for who in (*ours, "peft")]
    named = [c.name for c in bench.entrants(bench.QUICK, None)]
    assert named == [f"{who}_{name}" for name in names for who in ours]


def run(bench, tmp_path, *flags):
    path = tmp_path / "results" / "step.json"
    bench.main(["--quick", f"--output={path}", *flags])
    return json.loads(path.read_text())


@pytest.mark.slow
def test_the_benchmark_runs_and_reports(bench, tmp_path, capsys):
    found = run(bench, tmp_path, "--no_peer")
    assert found["steps"] == 3 and found["model"] == "quick"
    our = found["contenders"]["ours_float32"]
    assert 0 < our["step_seconds_best"] <= our["step_seconds_median"]
    assert 0 < our["fraction_of_peak"] < 1
    assert our["peak_bytes"] > 1e8
    assert "XLA's FLOPs / minimum" in capsys.readouterr().out


@pytest.mark.slow
def test_it_runs_against_peft(bench, tmp_path):
    pytest.importorskip("peft")
    found = run(bench, tmp_path, f"--peer_python={sys.executable}")["contenders"]
    assert found["peft_float32"]["step_seconds_median"] > 0
    assert set(found["peft_float32"]["versions"]) == {"torch", "transformers", "peft"}
