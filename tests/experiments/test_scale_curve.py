"""The scale curve's script: what it takes of the sweeps, what it leaves out, what it draws."""

import functools
import json

import pytest

from prompt_tuning.analysis.sweep_plots import plot_scale_curve
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import provenance, write_table
from prompt_tuning.sweeps.store import SweepStore

SIZES = {"tiny": 1000, "small": 4000}


@pytest.fixture
def script(load_experiment):
    return functools.partial(load_experiment, "scale_curve")


def finish(folder, model, seed, metrics, task="tinyworld_rte"):
    """Records a run as a sweep does."""
    score = sum(metrics.values()) / len(metrics)
    SweepStore(folder).finish(
        f"{model}-{task}-{seed}",
        {
            "settings": {"SEED": seed, "gin_file": ["models/x.gin", "tasks/y.gin"]},
            "folder": "parts/x",
            "config": {"train.method": "@paper/soft_prompt"},
            "versions": provenance({"python": "3.11"}, "2026-01-01"),
            "summary": {
                "task": task,
                "model": model,
                "score": score,
                "metrics": metrics,
                "report": {"split": "test", "score": score - 0.1, "metrics": metrics},
                "frozen_parameters": SIZES[model],
            },
        },
    )


@pytest.fixture
def runs(tmp_path):
    for model in SIZES:
        for seed in (0, 1):
            finish(tmp_path / "scale_curve_prompt_tuning", model, seed, {"accuracy": 0.5})
            if (model, seed) != ("small", 1):
                finish(tmp_path / "scale_curve_model_tuning", model, seed, {"accuracy": 0.75})
    # Its texts begin with the tasks' names.
    mixture = {"tinyworld_rte_with_name/accuracy": 0.9, "dpr/accuracy": 0.1}
    finish(tmp_path / "scale_curve_multitask", "tiny", 0, mixture, task="mixture")
    design = {"model": "tiny", "SEED": 0, "score": 0.25, "test_score": 0.25}
    (tmp_path / "scale_curve_design").mkdir()
    (tmp_path / "scale_curve_design" / "tiny.json").write_text(
        json.dumps(
            [
                {**design, "task": task, "frozen_parameters": 1000}
                for task in ("tinyworld_rte_with_name", "tinyworld_cb_with_name")
            ]
        )
    )
    return tmp_path


def test_methods_are_told_apart_and_a_mixture_counts_by_the_shared_tasks(script, runs):
    rows = script("plot").collect(runs, "", runs / "none.parquet")
    by_method = {}
    for row in rows:
        by_method.setdefault(row["method"], []).append(row["score"])
    assert by_method == {
        "prompt tuning": [0.5] * 4,
        "model tuning": [0.75] * 3,
        "multi-task model tuning": [0.9],
        "prompt design": [0.25],
    }
    assert {row["task"] for row in rows} == {"tinyworld_rte"}


def test_newer_results_replace_published_ones_and_the_others_stay(script, runs):
    plot = script("plot")
    rows = plot.collect(runs, "", runs / "none.parquet")
    old = [{**row, "score": 0.125} for row in rows] + [{**rows[0], "SEED": 7}]
    write_table(old, runs / "old")
    found = plot.collect(runs, "", runs / "old.parquet")
    assert sorted(row["score"] for row in found) == sorted([*(row["score"] for row in rows), 0.5])
    assert len([row for row in found if row["SEED"] == 7]) == 1


def test_a_model_is_one_column_with_its_size(script):
    parameters = {"small": 4000, "tiny": 1000}
    scores = [
        {"method": "prompt tuning", "model": "small", "score": 0.5},
        {"method": "model tuning", "model": "tiny", "score": 0.75},
    ]
    assert script("plot").table(scores, ["method"], parameters).splitlines() == [
        "| method | tiny (0.001M) | small (0.004M) |",
        "| --- | --- | --- |",
        "| prompt tuning | - | 0.500 |",
        "| model tuning | 0.750 | - |",
    ]


def test_the_test_split_is_drawn_and_what_is_missing_is_told(script, runs, capsys):
    plot = script("plot")
    (runs / "out").mkdir()
    plot.draw("miniature", runs, runs / "out")
    told = capsys.readouterr().out
    assert "- model tuning, small: 1 of 3 scores; seeds drawn: 1" in told
    assert "LoRA" not in told
    lines = (runs / "out" / "scale_curve.md").read_text().splitlines()
    assert lines[0] == "Mean test score of 1 tasks"
    assert lines[2] == "| method | tiny (0.001M) | small (0.004M) |"
    assert lines[4] == "| prompt tuning | 0.400 ± 0.000 (2) | 0.400 ± 0.000 (2) |"
    assert lines[5] == "| model tuning | 0.650 ± 0.000 (2) | 0.650 |"
    assert lines[7] == "| prompt design | 0.250 | - |"
    assert "Slope of the gap: 0.000 per tenfold size, 95% interval 0.000 to 0.000." in lines
    assert (runs / "out" / "scale_curve.png").read_bytes().startswith(b"\x89PNG")
    # Again from the table alone.
    before = (runs / "out" / "scale_curve.md").read_text()
    plot.draw("miniature", runs / "nowhere", runs / "out")
    assert (runs / "out" / "scale_curve.md").read_text() == before


def test_one_size_has_no_trend(script):
    rows = [
        {"method": method, "model": "tiny", "task": "rte", "SEED": 0, "score": 0.5}
        for method in ("model tuning", "prompt tuning")
    ]
    assert script("plot").gap_of(rows, SIZES) is None


def test_a_seed_without_all_tasks_is_not_drawn(script):
    row = {"method": "prompt tuning", "model": "tiny", "score": 0.5}
    rows = [{**row, "task": task, "SEED": seed} for task in ("rte", "cb") for seed in (0, 1)]
    drawn, missing = script("plot").complete(rows[:3], 2)
    assert drawn == [rows[0], rows[2]]
    assert missing == ["prompt tuning, tiny: 3 of 4 scores; seeds drawn: 1"]


def test_the_tasks_are_drawn_that_all_models_have(script):
    rows = [
        {"method": method, "model": model, "task": task, "SEED": 0, "score": 0.5}
        for method in ("prompt tuning", "model tuning")
        for model in ("tiny", "small")
        for task in ("rte", "cb")
    ]
    drawn, missing = script("plot").complete(rows[:-1], 1)
    assert drawn == [row for row in rows if row["task"] == "rte"]
    assert missing == ["model tuning, small: 1 of 2 scores; seeds drawn: 1"]


def test_an_excluded_task_is_in_the_table_but_not_in_the_mean(script, runs):
    for model in SIZES:
        for name in ("prompt_tuning", "model_tuning"):
            folder = runs / f"scale_curve_{name}"
            finish(folder, model, 0, {"accuracy": 0.9}, task="tinyworld_cb")
    (runs / "out").mkdir()
    script("plot").draw("miniature", runs, runs / "out")
    lines = (runs / "out" / "scale_curve.md").read_text().splitlines()
    assert lines[0] == "Mean test score of 1 tasks: rte"
    assert "| prompt tuning | 0.400 ± 0.000 (2) | 0.400 ± 0.000 (2) |" in lines
    assert "| tinyworld_cb | prompt tuning | 0.800 | 0.800 |" in lines
    assert any(line.startswith("- tinyworld_cb: only Large") for line in lines)
    assert not any("of 6 scores" in line for line in lines)


def test_nothing_to_draw_is_told(script, tmp_path):
    with pytest.raises(UserError, match=r"no results of the scale curve; start run\.py first"):
        script("plot").collect(tmp_path, "", tmp_path / "none.parquet")


def test_design_is_scored_once_for_each_model(script, runs, monkeypatch):
    script("plot")
    run = script("run")
    asked = []

    def command(argv):
        asked.append(argv)
        scored = {"task": "mixture", "score": 0.6, "tinyworld_rte_with_name/accuracy": 0.5}
        multirc = {"tinyworld_multirc_with_name/f1": 0.5, "tinyworld_multirc_with_name/em": 0.75}
        return f"some text\n{json.dumps({**scored, **multirc})}"

    monkeypatch.setattr(run, "output_of", command)
    run.design("miniature", runs)
    run.design("miniature", runs)
    assert len(asked) == 2  # of small; tiny has its scores
    assert {argv[-1] for argv in asked} == {"validation", "test"}
    assert "--gin_file=models/x.gin" in asked[0] and "--no_prompt" in asked[0]
    rows = json.loads((runs / "scale_curve_design" / "small.json").read_text())
    assert [(row["task"], row["score"], row["test_score"]) for row in rows] == [
        ("tinyworld_rte_with_name", 0.5, 0.5),
        ("tinyworld_multirc_with_name", 0.625, 0.625),
    ]
    assert {row["frozen_parameters"] for row in rows} == {4000}
    assert {"git_commit", "date"} <= rows[0].keys()


def test_published_runs_are_left_out(script, tmp_path, monkeypatch):
    script("plot")
    run = script("run")
    asked = []
    monkeypatch.setattr(
        run.subprocess,
        "run",
        lambda argv: asked.append(argv) or run.argparse.Namespace(returncode=0),
    )
    write_table([{"run": "a"}], tmp_path / "table")
    run.sweep("miniature", tmp_path / "x", tmp_path / "table", "[0]")
    run.sweep("miniature", tmp_path / "x", tmp_path / "other")
    done = f"--done={tmp_path / 'table.parquet'}"
    assert done in asked[0] and "--gin.SEEDS=[0]" in asked[0]
    assert len(asked[1]) == len(asked[0]) - 2


def test_published_points_are_of_the_models_and_hollow_unless_verified(tmp_path, script):
    points = script("plot").reference()
    assert points and {point["verified"] for point in points} == {False}
    rows = [{"model": "t5_1_1_lm100k_xxl", "method": "prompt tuning", "score": 0.5}]
    sizes = {"t5_1_1_lm100k_xxl": 11_135_332_352}
    options = {"parameters": sizes, "methods": ["prompt tuning"], "title": "x"}
    without = plot_scale_curve(rows, tmp_path / "a.png", **options).read_bytes()
    hollow = plot_scale_curve(rows, tmp_path / "b.png", **options, reference=points).read_bytes()
    verified = [{**point, "verified": True} for point in points]
    full = plot_scale_curve(rows, tmp_path / "c.png", **options, reference=verified).read_bytes()
    assert len({without, hollow, full}) == 3
