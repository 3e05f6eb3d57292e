"""Trials of what is checked and counted between text and tokens."""

import json
import re

import pytest

from prompt_tuning.cli import configurables, loading
from prompt_tuning.cli.parsers import parse
from prompt_tuning.recipes import counting
from prompt_tuning.recipes.splits import load_splits


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
    assert line.startswith("free train: 4 of 5 targets change when they are encoded and decoded")
    assert "the first is 'a {'" in line


def test_trial_07_a_label_that_the_vocabulary_can_not_spell(train_flags, command, tmp_path, rows):
    rows.write_text(rows.read_text().replace(",no", ",½"))
    result = command("train", *train_flags(), f"--gin.MODEL_DIR={tmp_path / 'run'}")
    assert result.status == 2
    assert "The label '½' becomes" in result.message


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
        ({"input": 64}, "unknown feature 'input'"),
        ({"inputs": 0}, "inputs is 0; expected a number of tokens"),
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


def test_trial_22_few_examples_by_seed(train_flags, command, rows, tmp_path):
    rows.write_text("text,label\n" + "the dog is tall .,yes\na cat ran .,no\n" * 20)
    flags = train_flags(
        data__examples_per_label=2,
        data__eval_examples_per_label=3,
        POPULATION=[{"data.sample_seed": 0}, {"data.sample_seed": 1}],
        TRAIN_STEPS=1,
        train__eval_every=1,
    )
    result = command("train", *flags, f"--gin.MODEL_DIR={tmp_path / 'run'}")
    assert result.status == 0, result.err
    for seed in (0, 1):
        chosen = f"of each label, data.sample_seed {seed})."
        assert f"r train: 4 of 40 examples are used (2 {chosen}" in result.err
        assert f"r validation: 6 of 40 examples are used (3 {chosen}" in result.err
    hashes = {
        json.loads(path.read_text())["contents of the data"]
        for path in (tmp_path / "run" / "members").glob("*/settings.json")
    }
    assert len(hashes) == 2


def test_trial_22_few_to_train_on_few_others_to_choose_on_and_all_to_score(
    train_flags, rows, capsys
):
    lines = [f"{i},{'the dog is tall ' * (1 + i % 3)},{('no', 'yes')[i % 2]}" for i in range(80)]
    rows.write_text("\n".join(["id,text,label", *lines]))
    settings = {
        "MODEL_DIR": "unused",
        "INPUT_TEMPLATE": "{text} is it?",
        "TASK_FEATURE_LENGTHS": {"inputs": 15},
        "data.held_out": 0.5,
        "data.examples_per_label": 4,
        "data.max_eval_examples": 6,
        "data.shorten": "text",
    }
    given = parse("train", [*train_flags(), *(f"--gin.{k}={v}" for k, v in settings.items())])
    loading.load_config(given)
    data = configurables.data()
    base = loading.load_base(data)
    found = {
        split: load_splits(base, data, split)[0] for split in ("train", "held_out", "validation")
    }
    assert [len(split) for split in found.values()] == [8, 6, 80]
    assert sorted(row["targets"] for row in found["train"].metadata) == ["no"] * 4 + ["yes"] * 4
    ids = {name: {row["row"]["id"] for row in split.metadata} for name, split in found.items()}
    assert len(ids["train"] | ids["held_out"]) == 14
    # What is too long loses the end of its column, not the question.
    validation = found["validation"]
    assert all(base.vocabulary.decode(validation.inputs[i]).endswith("is it?") for i in range(80))
    assert validation.inputs.lengths.max() <= 15
    shortened = validation.facts.shortened.sum()
    assert 0 < shortened < 80
    assert (
        f"r validation: {shortened} of 80 examples were shortened to 15" in capsys.readouterr().err
    )


def test_trial_37_a_long_evaluation_shows_how_far_it_is(finished_run, command, monkeypatch):
    monkeypatch.setattr(counting, "_SECONDS_BETWEEN_LINES", 0.0)
    result = command("evaluate", finished_run)
    assert result.status == 0
    assert re.search(r"validation: \d of 6 examples, \d\d:\d\d left", result.err)
