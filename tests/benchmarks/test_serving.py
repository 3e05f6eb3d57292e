"""What the load test counts as failed or mixed up, and the load test itself, small."""

import importlib.util
import json

import pytest


@pytest.fixture(scope="module")
def bench(checkout):
    spec = importlib.util.spec_from_file_location("serving", checkout / "benchmarks" / "serving.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_answers_that_are_anothers_are_counted(bench):
    asked = [{"prompt": "rte", "inputs": "a"}] * 5
    alone = [{"prediction": "yes", "scores": {"yes": -1.0, "no": -2.0}}] * 5
    right = {"prompt": "rte", "prediction": "yes", "scores": {"yes": -1.0, "no": -2.0001}}
    found = [
        (200, right),
        (429, {"error": "full"}),
        (200, {**right, "prediction": "no"}),
        (200, {**right, "prompt": "wsc"}),
        (200, {**right, "scores": {"yes": -1.0, "no": -2.1}}),
    ]
    assert bench.compare(asked, found, alone) == {"requests": 5, "failed": 1, "not_as_alone": 3}


def test_the_committed_result_has_no_wrong_answer(bench):
    result = json.loads(bench.RESULTS.read_text())
    for name in ("one_at_a_time", "many_at_once", "many_at_once_by_scores"):
        assert result[name]["failed"] == result[name]["not_as_alone"] == 0
        assert result[name]["requests"] >= 100
    assert result["many_over_one"] > 1
    assert min(result["accuracy"].values()) > 0.9


@pytest.mark.slow
def test_the_load_test_runs_and_reports(bench, tmp_path, capsys):
    path = tmp_path / "results" / "serving.json"
    with pytest.raises(SystemExit) as done:
        bench.main(["--quick", f"--output={path}"])
    assert done.value.code == 0
    result = json.loads(path.read_text())
    assert result["many_at_once"]["requests"] == 40
    assert f"{result['many_over_one']:.1f} times" in capsys.readouterr().out
