"""The experiments' sweeps are read, checked and planned; their figures drawn from made-up rows."""

import csv
import dataclasses
import runpy
import sys

import pytest

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_means
from prompt_tuning.cli.sweep_plan import load_sweep, runs_of
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.grid import combinations
from prompt_tuning.sweeps.store import SweepStore

EXPERIMENTS = {
    ("prompt_length", "sweep"): 600,
    ("prompt_length", "miniature"): 48,
    ("initialization", "sweep"): 270,
    ("initialization", "miniature"): 36,
}


@pytest.mark.parametrize(("experiment", "kind"), EXPERIMENTS)
def test_every_run_is_a_configuration(checkout, experiment, kind):
    sweep = load_sweep(str(checkout / "experiments" / experiment / f"{kind}.gin"), "", [])
    assert len(list(combinations(sweep.axes))) == EXPERIMENTS[experiment, kind]
    # Every file once, but not each with each.
    for place in range(max(map(len, sweep.axes))):
        one_each = [[axis[min(place, len(axis) - 1)]] for axis in sweep.axes]
        (run,) = runs_of(dataclasses.replace(sweep, axes=one_each), "")
        assert run.train_steps > 0


def record(model, task, seed, score, **settings):
    summary = {"task": task, "model": model, "score": score, "metrics": {"accuracy": score}}
    return {
        "settings": {"SEED": seed, **settings},
        "folder": "parts/x",
        "summary": {**summary, "steps": 1},
    }


@pytest.mark.parametrize("experiment", ["prompt_length", "initialization"])
def test_the_figure_is_drawn(checkout, tmp_path, monkeypatch, experiment):
    store = SweepStore(tmp_path / "sweep")
    starts = ("random_uniform", "sampled_vocabulary", "class_label")
    for seed in (0, 1):
        for place, start in enumerate(starts):
            settings = {"PROMPT_LENGTH": 5 * place, "gin_file": [f"prompts/{start}.gin"]}
            made_up = record("small", "rte", seed, 0.5 + 0.1 * place, **settings)
            store.finish(f"{start}-{seed}", made_up)
    script = checkout / "experiments" / experiment / "plot.py"
    output = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", [str(script), str(store.folder), "--output", str(output)])
    runpy.run_path(str(script), run_name="__main__")
    assert (output / f"{experiment}.png").read_bytes().startswith(b"\x89PNG")
    with (output / f"{experiment}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


def test_a_macro_score_needs_every_task(tmp_path):
    rows = [
        {"model": "a", "task": "rte", "SEED": 0, "score": 0.5},
        {"model": "a", "task": "cb", "SEED": 0, "score": 0.7},
        {"model": "b", "task": "cb", "SEED": 0, "score": 0.9},
    ]
    assert macro_scores(rows[:2], by=["model"]) == [{"model": "a", "SEED": 0, "score": 0.6}]
    with pytest.raises(UserError, match="model=b, SEED=0 lack rte"):
        macro_scores(rows, by=["model"])
    path = tmp_path / "x.png"
    plot_means(rows, path, x="task", line="model", order=["rte", "cb"], xlabel="t", title="")
    assert path.exists()


def test_what_is_not_verified_is_marked(checkout):
    with (checkout / "experiments" / "paper_reference.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["verified"] for row in rows} == {"yes", "no"}
    for row in rows:
        assert row["source"] and float(row["value"]) > 0
        assert ("remembered" in row["source"]) == (row["verified"] == "no")
