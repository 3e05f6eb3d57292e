"""The scale curve's script: what it takes of the sweeps, what it leaves out, what it draws."""

import functools
import json

import pytest

from prompt_tuning.analysis.sweep_plots import plot_scale_curve
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import provenance
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
    design = {"model": "tiny", "task": "tinyworld_rte", "SEED": 0, "score": 0.25}
    (tmp_path / "scale_curve_design").mkdir()
    (tmp_path / "scale_curve_design" / "tiny.json").write_text(
        json.dumps({**design, "design": "plain", "frozen_parameters": 1000})
    )
    return tmp_path


def test_methods_are_told_apart_and_a_mixture_counts_by_the_shared_tasks(script, runs):
    rows = script("plot").collect(runs, "")
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


def test_a_model_is_one_column_with_and_without_lm_adaptation(script):
    parameters = {"t5_1_1_small": 1000, "t5_1_1_lm100k_small": 1000}
    scores = [
        {"method": "prompt tuning", "model": "t5_1_1_lm100k_small", "score": 0.5},
        {"method": "model tuning", "model": "t5_1_1_small", "score": 0.75},
    ]
    assert script("plot").markdown(scores, parameters).splitlines() == [
        "| method | t5_1_1_small (0.001M) |",
        "| --- | --- |",
        "| prompt tuning | 0.500 |",
        "| model tuning | 0.750 |",
    ]


def test_what_is_unfinished_is_left_out_and_told(script, runs, capsys):
    plot = script("plot")
    plot.draw("miniature", runs, runs / "out")
    told = capsys.readouterr().out
    assert "model tuning on small is not drawn: 1 scores, 0 tasks missing" in told
    lines = (runs / "out" / "scale_curve.md").read_text().splitlines()
    assert lines[0] == "| method | tiny (0.001M) | small (0.004M) |"
    assert lines[2] == "| prompt tuning | 0.500 ± 0.000 (2) | 0.500 ± 0.000 (2) |"
    assert lines[3] == "| model tuning | 0.750 ± 0.000 (2) | - |"
    assert lines[-1] == "| prompt design | 0.250 | - |"
    assert (runs / "out" / "scale_curve.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_told(script, tmp_path):
    with pytest.raises(UserError, match=r"no results of the scale curve; start run\.py first"):
        script("plot").collect(tmp_path, "")


def test_design_scores_what_prompt_tuning_was_trained_on_once(script, runs, monkeypatch):
    script("plot")
    run = script("run")
    asked = []
    monkeypatch.setattr(run, "best_design", lambda files: asked.append(files) or BEST)
    run.design(runs, "")
    run.design(runs, "")
    assert asked == [["models/x.gin", "tasks/y.gin"]] * 2  # two models, once each
    made = json.loads((runs / "scale_curve_design" / "small-tinyworld_rte.json").read_text())
    assert (made["score"], made["frozen_parameters"]) == (0.625, 4000)


BEST = {"design": "plain", "shots": 0, "score": 0.625}


def test_the_best_wording_is_taken(script, monkeypatch):
    script("plot")
    run = script("run")
    scored = [{"design": "a", "score": 0.5}, {"design": "b", "score": 0.75}]

    def command(argv):
        assert argv == [
            "design",
            "--gin_file=models/x.gin",
            "--gin_file=tasks/y.gin",
            "--shots",
            "0",
        ]
        return f"a table\n\n{json.dumps({'results': scored})}"

    monkeypatch.setattr(run, "output_of", command)
    files = ["models/x.gin", "tasks/y.gin", "prompts/class_label.gin"]
    assert run.best_design(files) == scored[1]


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
