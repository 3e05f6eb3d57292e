"""The scripts that look at a sweep's prompts: together, by their neighbors, in mixed batches."""

import csv

import pytest

from prompt_tuning.cli.__main__ import main

SWEEP = """
sweep.files = ['models/tinyworld_tiny.gin', 'runs/train.gin']
sweep.settings = {
    'TRAIN_STEPS': 2, 'train.eval_every': 2, 'BATCH_SIZE': 8, 'train.tensorboard': False
}
sweep.grid = {'PROMPT_LENGTH': [3], 'SEED': [0, 1]}
sweep.listed = [
    {'gin_file': ['tasks/tinyworld_rte.gin', 'prompts/class_label.gin']},
    {'gin_file': ['tasks/tinyworld_wsc.gin', 'prompts/sampled_vocabulary.gin']},
]
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "small.gin").write_text(SWEEP)
    assert main(["sweep", str(folder / "small.gin"), f"--folder={folder / 'runs'}"]) == 0
    return folder / "runs"


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_prompts_of_a_task_vote(sweep, load_experiment, tmp_path, monkeypatch):
    plot = load_experiment("ensembling", "plot")
    plot.main([str(sweep), f"--output={tmp_path}"])
    found = {row["task"]: row for row in rows(tmp_path / "ensembling.csv")}
    assert set(found) == {"tinyworld_rte", "tinyworld_wsc"}
    for row in found.values():
        assert float(row["average"]) <= float(row["best"])
        assert 0 <= float(row["majority_vote"]) <= 1
    assert (tmp_path / "ensembling.png").read_bytes().startswith(b"\x89PNG")
    # What was scored is kept.
    monkeypatch.setattr(plot, "pt", None)
    plot.main([str(sweep), f"--output={tmp_path}"])


@pytest.mark.slow
def test_neighbours_are_measured(sweep, load_experiment, tmp_path):
    load_experiment("interpretability", "plot").main([str(sweep), f"--output={tmp_path}"])
    found = rows(tmp_path / "interpretability.csv")
    assert len(found) == 4
    for row in found:
        assert -1 <= float(row["tightness"]) <= 1 and 0 < float(row["distinct"]) <= 1
        # After two steps class labels are where they were put; free text has none.
        kept = {"tinyworld_rte": "1.0", "tinyworld_wsc": ""}[row["task"]]
        assert row["labels kept"] == kept
    assert "class label" in (tmp_path / "interpretability.md").read_text()
    assert (tmp_path / "interpretability.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_mixed_batches_answer_as_each_task_alone(sweep, load_experiment, tmp_path, monkeypatch):
    run = load_experiment("mixed_batches", "run")
    monkeypatch.setattr(run, "ROUNDS", 1)
    flags = ["--model=tinyworld_tiny", "--examples=12", f"--output={tmp_path}"]
    run.main([str(sweep), *flags])
    found = rows(tmp_path / "mixed_batches.csv")
    assert {row["task"] for row in found} == {"tinyworld_rte", "tinyworld_wsc"}
    for row in found:
        assert row["examples"] == "12" and row["answers that differ"] == "0"
        assert row["score, mixed"] == row["score, by task"]
