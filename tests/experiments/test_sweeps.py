"""The experiments: whole folders, sweeps that are read, planned and run shrunken, and figures."""

import csv
import dataclasses
import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from prompt_tuning.analysis.sweep_plots import macro_scores, plot_means
from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.sweep_plan import load_sweep, runs_of
from prompt_tuning.errors import UserError
from prompt_tuning.recipes.scripts import USER_ERROR
from prompt_tuning.sweeps.grid import combinations
from prompt_tuning.sweeps.runs import parts_of
from prompt_tuning.sweeps.store import SweepStore

CHECKOUT = Path(__file__).resolve().parents[2]
EXPERIMENTS = CHECKOUT / "experiments"
SWEEPS = sorted(
    path.relative_to(EXPERIMENTS).as_posix()
    for path in EXPERIMENTS.glob("*/*.gin")
    if re.search(r"^sweep\.", path.read_text(), re.MULTILINE)
)
REAL = [name for name in SWEEPS if name.rpartition("/")[2].startswith("sweep")]
# The others differ from these in what `tests/test_configs.py` trains a step of.
QUICK = ("pretraining_objective/sweep.gin",)

# The paper's figures, tables and sections, and the folder of each.
FOLDERS = {
    "scale_curve": "Figure 1",
    "prompt_length": "Figure 3a",
    "initialization": "Figure 3b",
    "pretraining_objective": "Figure 3c",
    "lm_adaptation": "Figure 3d",
    "domain_shift": "Table 1",
    "paraphrase_transfer": "Table 2",
    "ensembling": "Table 3",
    "interpretability": "Section 7",
}
CURVE = "scale_curve"
"""Whose script draws several sweeps at once."""
# No figure of the paper, so there is neither a sweep of the real models nor a miniature.
BESIDE = ("convergence", "real_text")
# Of these nothing is swept: parameters are counted, and batches are mixed of prompts as they are.
WITHOUT_SWEEP = {"mixed_batches": "Figure 2", "parameter_use": "Figure 4"}


def whole(folder):
    """Checks that an experiment has all that it is to have."""
    readme = (folder / "README.md").read_text()
    assert re.search(r"^    .*experiments/" + folder.name, readme, re.MULTILINE), "no command"
    results = folder / "results"
    assert list(results.glob("*.csv")), "no table"
    figures = [path.name for path in results.glob("*.png")]
    assert any(f"(results/{name})" in readme for name in figures), "no figure, or not shown"


def test_every_sweep_is_found():
    assert len(SWEEPS) >= 18
    assert {name.partition("/")[0] for name in SWEEPS} == {*FOLDERS, *BESIDE}


@pytest.mark.parametrize("name", FOLDERS)
def test_an_experiment_is_whole(name):
    folder = EXPERIMENTS / name
    whole(folder)
    for file in ("sweep.gin", "miniature.gin"):
        assert (folder / file).is_file(), f"no {file}"
    assert FOLDERS[name] in (folder / "README.md").read_text().splitlines()[0]


@pytest.mark.parametrize("name", WITHOUT_SWEEP)
def test_an_experiment_without_a_sweep_is_whole(name):
    whole(EXPERIMENTS / name)
    assert WITHOUT_SWEEP[name] in (EXPERIMENTS / name / "README.md").read_text().splitlines()[0]


@pytest.mark.parametrize("name", BESIDE)
def test_an_experiment_of_our_own_is_whole(name):
    whole(EXPERIMENTS / name)


@pytest.fixture
def at_root(checkout, monkeypatch):
    """Some sweeps name files by their path from the repository's root."""
    monkeypatch.chdir(checkout)


def one_each(sweep, place):
    """A sweep of one run: of the setting at `place` of every axis, or its last if it has fewer."""
    axes = [[axis[min(place, len(axis) - 1)]] for axis in sweep.axes]
    return dataclasses.replace(sweep, axes=axes)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_run_is_a_configuration(at_root, name):
    sweep = load_sweep(f"experiments/{name}", "", [])
    runs = list(combinations(sweep.axes))
    comment = " ".join(re.findall(r"^# *(.*)", (EXPERIMENTS / name).read_text(), re.MULTILINE))
    if told := re.search(r"([\d,]+) runs\b", comment):
        assert len(runs) == int(told[1].replace(",", ""))
    # Every setting of every axis once, but not each with each.
    planned = []
    for place in range(max(map(len, sweep.axes))):
        planned += runs_of(one_each(sweep, place), "")
    assert all(run.train_steps > 0 for run in planned)
    parts = parts_of(planned, sweep.places)
    assert sorted(run.name for part in parts for run in part.runs) == sorted(
        run.name for run in planned
    )
    for part in parts:
        assert part.command(Path("x"), "")[0] == "train"


@pytest.mark.parametrize("name", ["prompt_length", "paraphrase_transfer"])
def test_published_results_are_of_the_runs_as_they_are_named_today(at_root, name):
    """Another name would train a run again in the folder of an older version."""
    with (EXPERIMENTS / name / "results" / f"{name}.csv").open() as file:
        published = {row["run"] for row in csv.DictReader(file)}
    sweep = load_sweep(f"experiments/{name}/miniature.gin", "", [])
    (run,) = runs_of(one_each(sweep, 0), "")
    assert run.name in published


@pytest.mark.usefixtures("compile_once")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in REAL],
)
def test_a_run_of_the_real_sweep_runs_shrunken(at_root, tmp_path, tiny_settings, name):
    sweep = load_sweep(f"experiments/{name}", "", [])
    # The last of each axis: the largest model, and model tuning where both methods are swept.
    (part,) = parts_of(runs_of(one_each(sweep, max(map(len, sweep.axes))), ""), sweep.places)
    assert main([*part.command(tmp_path / "run", ""), *tiny_settings]) == 0
    (folder,) = part.run_folders(tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 1 and summary["trained_parameters"] > 0
    assert 0 <= summary["score"] <= 1


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
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    assert (output / f"{experiment}.png").read_bytes().startswith(b"\x89PNG")
    with (output / f"{experiment}.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 6


@pytest.mark.parametrize(
    "experiment",
    [name for name in FOLDERS if (EXPERIMENTS / name / "plot.py").exists() and name != CURVE],
)
def test_a_folder_without_results_is_told_in_one_line(
    checkout, tmp_path, monkeypatch, capsys, experiment
):
    script = str(checkout / "experiments" / experiment / "plot.py")
    monkeypatch.syspath_prepend(checkout / "experiments" / experiment)
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(script, run_name="__main__")
    told = capsys.readouterr()
    assert ended.value.code == USER_ERROR
    assert "nowhere" in told.err and told.err.count("\n") == 1 and not told.out


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
