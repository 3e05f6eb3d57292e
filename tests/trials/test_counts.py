"""Trials of what is checked and counted between text and tokens."""

import pytest


def test_trial_07_targets_that_the_vocabulary_can_not_spell(train_flags, command, tmp_path):
    rows = tmp_path / "free.csv"
    odd = ["a {", "a dog", '"a\tb"', "½", "\uff11\uff12"]
    rows.write_text("text,label\n" + "".join(f"a dog ran .,{text}\n" for text in odd))
    result = command(
        "train",
        *train_flags(rows=rows, user_files__labels=[], TRAIN_STEPS=1),
        f"--gin.MODEL_DIR={tmp_path / 'run'}",
    )
    assert result.status == 0
    (line,) = [line for line in result.err.splitlines() if "free train" in line]
    assert line.startswith("free train: 4 of 5 targets don't survive the vocabulary")
    assert "the first is 'a {'" in line


def test_trial_07_a_label_that_the_vocabulary_can_not_spell(train_flags, command, tmp_path, rows):
    rows.write_text(rows.read_text().replace(",no", ",½"))
    result = command("train", *train_flags(), f"--gin.MODEL_DIR={tmp_path / 'run'}")
    assert result.status == 2
    assert "The label '½' comes back from the vocabulary" in result.message


def test_trial_08_a_label_that_targets_have_no_room_for(train_flags, command, tmp_path, rows):
    rows.write_text(rows.read_text().replace(",no", ",tall dog"))
    flags = train_flags(TASK_FEATURE_LENGTHS={"targets": 2})
    result = command("train", *flags, f"--gin.MODEL_DIR={tmp_path / 'run'}")
    assert result.status == 2
    assert result.message.endswith(
        "The label 'tall dog' has 4 tokens with end of sequence, but targets may have only 2; set "
        "TASK_FEATURE_LENGTHS to {'targets': 4}."
    )


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"input": 64}, "there is no feature 'input'"),
        ({"inputs": 0}, "inputs may not be 0 tokens long"),
    ],
)
def test_trial_30_lengths_that_are_none(lengths, message, train_flags, command, tmp_path):
    flags = train_flags(TASK_FEATURE_LENGTHS=lengths)
    result = command("train", *flags, f"--gin.MODEL_DIR={tmp_path / 'run'}")
    assert result.status == 2
    assert message in result.message


def test_trial_30_a_length_that_is_missing_is_the_tasks_own(train_flags, command):
    flags = train_flags(TASK_FEATURE_LENGTHS={"inputs": 4})
    result = command("show", "-n", "1", *flags, "--gin.MODEL_DIR=unused")
    assert result.status == 0
    assert "3 of the prompt, 4 tokens (cut from" in result.out
