"""The benchmark of answers, small."""

import importlib
import json
import sys

import pytest


@pytest.mark.slow
def test_the_benchmark_runs_and_reports(tmp_path, capsys):
    pytest.importorskip("peft")
    path = tmp_path / "decode.json"
    bench = importlib.import_module("decode")
    bench.main(["--quick", f"--output={path}", f"--peer_python={sys.executable}"])
    result = json.loads(path.read_text())
    for task in ("decode", "rank"):
        found = result["contenders"][task]
        assert set(found) == {"ours", "peft"}
        assert all(of_one["seconds_median"] > 0 for of_one in found.values())
    assert "rank: times as fast as PEFT" in capsys.readouterr().out
