"""The convergence experiment's script: the recipe of a run, and what the table says of it."""

import pytest

from prompt_tuning.cli.sweep_plan import load_sweep
from prompt_tuning.sweeps.grid import combinations


@pytest.fixture
def script(load_experiment):
    return load_experiment("convergence", "run")


def test_every_run_of_the_sweep_has_its_own_recipe(script, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    sweep = load_sweep("experiments/convergence/miniature.gin", "", [])
    runs = list(combinations(sweep.axes))
    recipes = {
        script.recipe({"LEARNING_RATE": None, **run, "gin_file": str(run["gin_file"])})
        for run in runs
    }
    assert len(recipes) * len(script.TASKS) * 2 == len(runs)
    assert {run["train.target_score"] for run in runs} == {row[3] for row in script.TASKS}
    assert sweep.settings.items() >= script.SETTINGS.items()


def test_a_cell_has_the_steps_or_the_best_score_without_the_target(script):
    reached = {"steps": 1200, "score": 0.9, "target": 0.86}
    assert script.cell([reached, {**reached, "score": 0.5}]) == "1,200, - (0.50)"
