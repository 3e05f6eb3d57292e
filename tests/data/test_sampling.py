"""Few examples of a split: how many, which, and rows that are set aside."""

import json

import numpy as np
import pytest

from prompt_tuning.data.sampling import HELD_OUT, Sample, with_held_out
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tokenized import NO_FACTS, Ragged, RowFacts, TokenizedSplit
from prompt_tuning.errors import UserError

LABELS = ("yes", "no", "rare")
TARGETS = ["yes", "no"] * 20 + ["rare"] * 3


@pytest.fixture
def split() -> TokenizedSplit:
    """43 rows, each of its own number alone."""
    size = len(TARGETS)
    numbers = Ragged(np.arange(size), np.arange(size + 1))
    nothing = np.zeros(size, bool)
    return TokenizedSplit(
        task="toy",
        split="train",
        inputs=numbers,
        targets=numbers,
        metadata_json="\n".join(json.dumps({"targets": text}) for text in TARGETS).encode(),
        facts=RowFacts(full_lengths={}, limits={}, unspelled=nothing, shortened=nothing),
    )


def rows(split: TokenizedSplit) -> list[int]:
    return split.inputs.values.tolist()


def test_so_many_at_random(split):
    chosen = Sample(examples=8, seed=1).take(split, LABELS)
    assert len(set(rows(chosen))) == len(chosen) == len(chosen.metadata) == 8
    assert rows(chosen) == sorted(rows(chosen)) != list(range(8))
    assert [row["targets"] for row in chosen.metadata] == [TARGETS[row] for row in rows(chosen)]
    assert rows(Sample(examples=8, seed=1).take(split, None)) == rows(chosen)
    assert rows(Sample(examples=8, seed=2).take(split, None)) != rows(chosen)
    assert set(rows(chosen)) < set(rows(Sample(examples=16, seed=1).take(split, None)))
    assert len(Sample(examples=99).take(split, None)) == len(split)
    assert Sample().take(split, None) is split


def test_so_many_of_each_label(split):
    sample = Sample(per_label=4)
    chosen = sample.take(split, LABELS)
    assert (
        sorted(row["targets"] for row in chosen.metadata) == ["no"] * 4 + ["rare"] * 3 + ["yes"] * 4
    )
    assert set(rows(chosen)) < set(rows(Sample(per_label=8).take(split, LABELS)))
    assert sample.note(split, chosen) == (
        "toy train: 11 of 43 examples are used (4 of each label, data.sample_seed 0); there are "
        "fewer of 'rare' 3."
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"examples": 0}, "number of examples is 0; it must be at least 1"),
        ({"per_label": -1}, "The number per label is -1"),
        ({"examples": 8, "per_label": 4}, "Both 8 examples and 4 of each label"),
        ({"examples": 8, "seed": -1}, "sample_seed is -1"),
    ],
)
def test_what_is_no_sample(values, message):
    with pytest.raises(UserError, match=message):
        Sample(**values)


def test_free_text_has_no_labels_to_count(split):
    with pytest.raises(UserError, match="answers of toy are free text.*data.max_examples"):
        Sample(per_label=4).take(split, None)


def test_a_split_made_from_no_text_has_no_facts():
    assert NO_FACTS.cut == {}


def test_rows_held_out_are_no_training_rows(tiny_superglue, tmp_path):
    path = tmp_path / "RTE" / "train.jsonl"
    path.parent.mkdir()
    row = {"premise": "a", "hypothesis": "b", "label": "entailment"}
    path.write_text("".join(json.dumps(row | {"idx": i}) + "\n" for i in range(200)))
    rte = get_task("superglue_rte")
    task = with_held_out(rte, 0.25)
    found = {
        split: [example.metadata["idx"] for example in task.examples(split, str(tmp_path))]
        for split in ("train", HELD_OUT)
    }
    assert sorted(found["train"] + found[HELD_OUT]) == list(range(200))
    assert 30 < len(found[HELD_OUT]) < 70
    whole = list(rte.examples("validation", str(tiny_superglue)))
    assert list(task.examples("validation", str(tiny_superglue))) == whole


def test_what_can_not_be_held_out():
    with pytest.raises(UserError, match=r"data.held_out is 1.5"):
        with_held_out(get_task("superglue_rte"), 1.5)
    with pytest.raises(UserError, match="no training rows to hold out"):
        with_held_out(get_task("superglue_axb"), 0.1)
