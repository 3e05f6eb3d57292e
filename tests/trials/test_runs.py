"""Trials of what a run's settings are, and of how a run continues."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from prompt_tuning.cli import gin_config


def final_state(run, step):
    """What a checkpoint holds: the progress but for the clock, and the bytes of every array."""
    folder = (run / "checkpoints" / str(step)).absolute()
    record = json.loads((folder / "progress" / "metadata").read_text())["progress"]
    state = ocp.StandardCheckpointer().restore(folder / "state")
    return record["best"], [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.mark.parametrize("rate", ["-1.0", "0.0"])
def test_trial_11_a_rate_that_is_not_above_0_is_refused(command, train_flags, tmp_path, rate):
    result = command("train", *train_flags(LEARNING_RATE=rate, MODEL_DIR=tmp_path / "run"))
    assert result.status == 2
    assert result.message == f"prompt-tuning: LEARNING_RATE is {rate}; it must be above 0."


def test_trial_12_and_13_a_run_continues_to_more_steps(command, train_flags, tmp_path):
    run, longer = tmp_path / "run", tmp_path / "longer"
    settings = {"train.eval_every": 2, "predict.method": "rank"}
    assert command("train", *train_flags(TRAIN_STEPS=2, MODEL_DIR=run, **settings)).status == 0
    more = {**settings, "train.log_every": 10, "train.keep_checkpoints": 3}
    result = command("train", *train_flags(TRAIN_STEPS=4, MODEL_DIR=run, **more))
    assert result.status == 0, result.err
    assert json.loads((run / "summary.json").read_text())["steps"] == 4
    command("train", *train_flags(TRAIN_STEPS=4, MODEL_DIR=longer, **settings))
    scores = [
        [row for row in map(json.loads, (each / "metrics.jsonl").open()) if "eval/score" in row]
        for each in (run, longer)
    ]
    assert [row["eval/score"] for row in scores[0]] == [row["eval/score"] for row in scores[1]]
    assert final_state(run, 4) == final_state(longer, 4)
    # Fewer steps than have been made.
    fewer = command("train", *train_flags(TRAIN_STEPS=3, MODEL_DIR=run, **settings))
    assert fewer.status == 2
    assert "contains a run of 4 steps, but TRAIN_STEPS is 3" in fewer.message


def test_trial_14_the_same_data_at_another_path(command, train_flags, finished_run, rows, tmp_path):
    moved = tmp_path / "elsewhere" / "x.csv"
    moved.parent.mkdir()
    shutil.copy(rows, moved)
    flags = train_flags(rows=moved, MODEL_DIR=finished_run)
    assert command("train", *flags).status == 0
    moved.write_text(moved.read_text().replace("tall", "small"))
    result = command("train", *flags)
    assert result.status == 2
    assert "contents of the data" in result.message


@pytest.mark.parametrize("order", [1, -1])
def test_trial_23_a_method_s_optimizer_holds_in_either_order(order):
    files = ["tasks/tinyworld_rte.gin", "methods/lora.gin", "runs/train.gin"][::order]
    given = [("INITIAL_CHECKPOINT_PATH", "None"), ("VOCABULARY_PATH", "None"), ("MODEL_DIR", "x")]
    gin_config.load(files, given)
    assert gin_config.settings()["train.optimizer"] == "@adamw()"
    assert gin_config.macro("LEARNING_RATE") == 5e-4


@pytest.mark.parametrize("part", ["progress", "state/d"])
def test_trial_27_a_bad_checkpoint_is_one_line(command, train_flags, finished_run, part, caplog):
    newest = max((finished_run / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    shutil.copytree(newest, newest.with_name("2"))
    for file in (newest / part).rglob("*"):
        if file.is_file() and file.stat().st_size > 40:
            file.write_bytes(file.read_bytes()[:20])
    result = command("train", *train_flags(MODEL_DIR=finished_run))
    assert result.status == 0
    assert "Traceback" not in result.err + caplog.text and "tensorstore" not in result.err
    lines = [record.message for record in caplog.records if " is damaged" in record.message]
    assert len(lines) == 1 and "\n" not in lines[0]


def test_a_macro_that_refers_to_itself(command, train_flags, tmp_path):
    result = command("train", *train_flags(MODEL_DIR=tmp_path / "run", SEED="%SEED"))
    assert result.status == 2
    assert "The macro SEED refers to itself" in result.message
