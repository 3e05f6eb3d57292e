"""How the benchmark of throughput cuts real lengths into batches; and the benchmark, small."""

import importlib
import json
import sys

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench():
    return importlib.import_module("throughput")


LENGTHS = np.random.default_rng(0).integers(10, 300, 400)


def test_pieces_hold_the_examples(bench):
    for pieces, padded in [
        (bench.random_pieces(LENGTHS, 50, None), None),
        (bench.random_pieces(LENGTHS, 50, 512), 512),
    ]:
        assert sorted(n for p in pieces for n in p["lengths"]) == sorted(LENGTHS)
        assert all(p["padded"] == (padded or max(p["lengths"])) for p in pieces)
    budget = bench.TokenBudget(tokens=2000, extra=100, num_lengths=6)
    pieces = bench.our_pieces(LENGTHS, budget, 100)
    for piece in pieces:
        assert max(piece["lengths"]) <= piece["padded"]
        assert len(piece["lengths"]) * (piece["padded"] + 100) <= 2000
    assert len({p["padded"] for p in pieces}) <= 6
    assert (
        bench.padding(pieces, 100)
        < 0.1
        < bench.padding(bench.random_pieces(LENGTHS, 50, None), 100)
    )


def test_padding_by_hand(bench):
    assert bench.padding([{"lengths": [1, 3], "padded": 4}], prompt=0) == 0.5
    assert bench.padding([{"lengths": [1, 3], "padded": 4}], prompt=4) == 0.25


def test_flops_that_padding_costs(bench):
    config = bench.get_config("t5_1_1_small")
    unpadded = {"lengths": [50, 50], "padded": 50}
    longer = {"lengths": [100, 100], "padded": 100}
    padded = {"lengths": [50, 50], "padded": 100}
    over = [bench.flops_over_unpadded([p], config, 100) for p in (unpadded, longer, padded)]
    assert over[:2] == [1, 1]
    # A third more positions: attention costs more than that, the decoder no more.
    assert 1.3 < over[2] < 1.4


@pytest.mark.slow
def test_the_benchmark_runs_and_reports(bench, real_data, tmp_path, capsys):
    pytest.importorskip("peft")
    path = tmp_path / "throughput.json"
    flags = ["--quick", "--tasks", "copa", f"--data={real_data}", f"--output={path}"]
    bench.main([*flags, f"--peer_python={sys.executable}"])
    found = json.loads(path.read_text())["tasks"]["copa"]
    assert set(found) == {"ours", "ours_512", "peft"}
    assert all(of_one["examples_per_second"] > 0 for of_one in found.values())
    assert found["ours_512"]["padding"] > 0.5 > found["ours"]["padding"]
    assert "times as fast as padded to 512" in capsys.readouterr().out
