"""The small English T5's table and figures: the majority class, both methods, what is missing."""

import csv
import json

import pytest

from prompt_tuning.data.tasks.task import get_task
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.results import provenance
from prompt_tuning.sweeps.store import SweepStore


@pytest.fixture
def plot(load_experiment):
    return load_experiment("real_text", "plot")


def finish(runs, method, task, seed, score):
    """Records a run as a sweep does, with two evaluations."""
    folder = runs / f"real_text_{method}"
    run = folder / "parts" / f"{task}-{seed}"
    run.mkdir(parents=True)
    rows = [{"step": step, "eval/score": score * step / 10} for step in (0, 10)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    SweepStore(folder).finish(
        f"{task}-{seed}",
        {
            "settings": {"SEED": seed},
            "folder": f"parts/{task}-{seed}",
            "versions": provenance({}, "2026-01-01"),
            "summary": {
                "task": task,
                "model": "english",
                "score": score,
                "metrics": {"accuracy": score},
            },
        },
    )


def test_the_majority_is_that_of_the_training_examples(plot, tmp_path):
    folder = tmp_path / "CB"
    folder.mkdir()
    labels = {"train": ["neutral"] * 2 + ["entailment"], "val": ["entailment"] * 3 + ["neutral"]}
    for split, given in labels.items():
        rows = [
            {"premise": "a", "hypothesis": "b", "label": label, "idx": i}
            for i, label in enumerate(given)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    row = plot.majority_class(get_task("superglue_cb"), str(tmp_path))
    assert row["accuracy"] == 0.25
    # F1 of "neutral" is 2/5 (precision 1/4, recall 1); of the other two it is 0.
    assert row["macro_f1"] == pytest.approx(0.4 / 3)
    assert row["score"] == pytest.approx((row["accuracy"] + row["macro_f1"]) / 2)


def test_scores_and_curves_are_written_beside_the_majority(plot, tmp_path, tiny_data, capsys):
    for method, score in (("prompt_tuning", 0.5), ("model_tuning", 0.75)):
        for task in ("superglue_rte", "glue_sst2"):
            for seed in (0, 1):
                finish(tmp_path, method, task, seed, score)
    output = tmp_path / "out"
    argv = ["--data_dir", str(tiny_data), "--runs", str(tmp_path), "--output", str(output)]
    plot.main(argv)
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "| task | majority class | prompt tuning | model tuning |"
    assert [line.split(" | ")[0] for line in table[2:4]] == ["| superglue_rte", "| glue_sst2"]
    assert all(line.endswith("| 0.500 ± 0.000 | 0.750 ± 0.000 |") for line in table[2:4])
    assert (output / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    with (output / "curves.csv").open() as file:
        curves = list(csv.DictReader(file))
    assert len(curves) == 2 * 2 * 2 * 2
    assert {row["method"] for row in curves} == {"prompt tuning", "model tuning"}


def test_a_task_that_one_method_lacks_is_told(plot, tmp_path, tiny_data):
    finish(tmp_path, "prompt_tuning", "superglue_rte", 0, 0.5)
    finish(tmp_path, "prompt_tuning", "superglue_cb", 0, 0.5)
    finish(tmp_path, "model_tuning", "superglue_rte", 0, 0.5)
    with pytest.raises(UserError, match="No run of model tuning on superglue_cb"):
        plot.main(["--data_dir", str(tiny_data), "--runs", str(tmp_path)])
