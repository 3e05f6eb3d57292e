"""Listing the tasks, and showing examples as the model sees them."""

import itertools
import json
import re

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.show import example_lines
from prompt_tuning.data.mixtures import MIXTURES
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.data.tasks.sizes import SIZES
from prompt_tuning.data.tasks.task import Example
from prompt_tuning.data.tokenized import tokenized
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.recipes.scripts import USER_ERROR, status_of
from prompt_tuning.tinyworld.generate import SPLITS


def test_every_task_and_mixture_is_listed(capsys):
    main(["tasks"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 110
    first = {line.split()[0] for line in lines if line.strip()}
    for name in (*list_tasks(), *MIXTURES):
        base = name.removesuffix("_with_name")
        assert first & {name, f"{base}*"}, name
    (rte,) = [line for line in lines if line.startswith("superglue_rte*")]
    assert rte.split()[1:4] == ["2,490", "277", "3,000"]
    (copa,) = [line for line in lines if line.startswith("superglue_copa*")]
    assert copa.endswith("choice1, choice2")


def test_sizes_are_of_tasks_and_splits_that_there_are():
    assert set(SIZES) <= set(list_tasks())
    for name, sizes in SIZES.items():
        assert set(sizes) == set(get_task(name).splits), name


def test_sizes_are_those_of_the_real_files(real_data):
    for name in ("cb", "copa", "rte", "wic"):
        task = get_task(f"superglue_{name}")
        source = task.source(str(real_data / "superglue"))
        found = {split: sum(1 for _ in source.rows(split)) for split in task.splits}
        assert found == SIZES[task.name]
    generated = {"train": "train", "validation": "val", "test": "test"}
    expected = {split: SPLITS[file][1] for split, file in generated.items()}
    assert SIZES["tinyworld_rte"] == expected


def shown(capsys, monkeypatch, *argv, width=80):
    monkeypatch.setenv("COLUMNS", str(width))
    capsys.readouterr()
    main(["show", *argv])
    return capsys.readouterr().out


def test_examples_are_shown_as_the_model_sees_them(
    tiny_superglue, tiny_vocabulary_file, capsys, monkeypatch
):
    flags = [f"--gin.DATA_DIR={tiny_superglue}", f"--gin.VOCABULARY_PATH={tiny_vocabulary_file}"]
    lengths = {"inputs": 40, "targets": 6}
    out = shown(
        capsys, monkeypatch, "superglue_rte", "-n", "2", *flags, "--split=validation",
        f"--gin.TASK_FEATURE_LENGTHS={lengths}", "--gin.PROMPT_LENGTH=20",
    )  # fmt: skip
    assert max(map(len, out.splitlines())) <= 80
    examples = out.split("superglue_rte, validation, example ")[1:]
    split = tokenized(
        get_task("superglue_rte"),
        "validation",
        vocabulary=Vocabulary(tiny_vocabulary_file),
        lengths=lengths,
        data_dir=str(tiny_superglue),
    )
    rows = [json.loads(line) for line in (tiny_superglue / "RTE" / "val.jsonl").open()]
    assert len(examples) == 2
    for i, text in enumerate(examples):
        joined = " ".join(text.split())
        assert f"premise: {rows[i]['premise']}" in joined
        assert f"targets {rows[i]['label']}" in joined
        assert "the encoder reads 60 positions: 20 of the prompt, 40 tokens (cut from" in joined
        assert "[P0] [P1] [P2] ... [P18] [P19]" in joined
        encoder, decoder = text.split("the encoder reads")[1].split("the decoder is trained on")
        assert ids_in(encoder) == split.inputs[i].tolist()
        assert ids_in(decoder) == split.targets[i].tolist()


def ids_in(text):
    """The ids below the pieces, line by line; those of the prompt have none."""
    lines = text.splitlines()[1:]
    below = [line for above, line in itertools.pairwise(lines) if re.match(r" +\d+  ", above)]
    return [int(id_) for line in below for id_ in line.replace("prompt", "").split()]


def test_a_mixture_is_shown_task_by_task(tiny_superglue, tiny_vocabulary_file, capsys, monkeypatch):
    flags = [f"--gin.DATA_DIR={tiny_superglue}", f"--gin.VOCABULARY_PATH={tiny_vocabulary_file}"]
    out = shown(capsys, monkeypatch, "superglue", "-n", "1", *flags)
    assert re.findall(r"^(\w+), train, example 0$", out, re.MULTILINE) == list(
        MIXTURES["superglue"]
    )


@pytest.mark.parametrize("width", [80, 200])
def test_lines_fit_the_terminal(tiny_vocabulary_file, width):
    example = Example(inputs="Rain fell on the mat. " * 30, targets="entailment")
    vocabulary = Vocabulary(tiny_vocabulary_file)
    lines = list(example_lines(example, vocabulary, {"inputs": 99, "targets": 8}, 5, width))
    assert max(map(len, lines)) <= width
    assert any("[P0]   [P1]   [P2]   [P3]   [P4]" in line for line in lines)


def test_what_show_refuses(tiny_superglue, capsys):
    for argv, told in (
        (["superglue_rtee"], "Did you mean 'superglue_rte'"),
        (["superglue_rte", "-n", "0"], "-n is 0; it must be at least 1"),
        (["superglue_rte", f"--gin.DATA_DIR={tiny_superglue}", "--split=dev"], "no split 'dev'"),
        ([], "MIXTURE_OR_TASK_NAME is used by the configuration and not set"),
    ):
        capsys.readouterr()
        assert status_of(main, ["show", *argv]) == USER_ERROR
        printed = capsys.readouterr()
        assert told in printed.err.splitlines()[-1]
