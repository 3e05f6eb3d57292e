"""A sentinel before every target: put there after cutting, taken off what is answered."""

import numpy as np
import pytest

from prompt_tuning.data.batching import BatchStream
from prompt_tuning.data.pretraining import span_corruption
from prompt_tuning.data.target_sentinel import TargetForm
from prompt_tuning.data.tokenized import Ragged, TokenizedSplit
from prompt_tuning.data.vocabularies import EOS_ID, Vocabulary
from prompt_tuning.errors import UserError


@pytest.fixture(scope="module")
def form(tiny_vocabulary_file):
    return TargetForm(Vocabulary(tiny_vocabulary_file), True)


def ragged(*rows):
    return Ragged(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))


def test_every_target_of_a_split_begins_with_it(form):
    split = TokenizedSplit(
        task="t",
        split="train",
        inputs=ragged([5, EOS_ID], [6, EOS_ID], [7, EOS_ID]),
        targets=ragged([8, 9, EOS_ID], [EOS_ID], [9, EOS_ID]),
        metadata_json=b"{}",
    )
    (first,) = form.prefix
    found = form.split(split)
    rows = [found.targets[i].tolist() for i in range(3)]
    assert rows == [[first, 8, 9, EOS_ID], [first, EOS_ID], [first, 9, EOS_ID]]
    assert [found.inputs[i].tolist() for i in range(3)] == [[5, 1], [6, 1], [7, 1]]
    assert TargetForm(form.vocabulary).split(split) is split
    batch = BatchStream(found, batch_size=3, seed=0).batch(0)
    assert (batch["decoder_target_tokens"][:, 0] == first).all()
    assert (batch["decoder_input_tokens"][:, 1] == first).all()
    assert batch["decoder_target_tokens"].shape == (3, 4)


def test_it_is_the_first_of_span_corruption(form):
    ids = list(range(10, 30))
    size = len(form.vocabulary)
    _, targets = span_corruption(ids, np.random.default_rng(0), vocab_size=size)
    assert tuple(targets[:1]) == form.prefix
    assert form.vocabulary.piece(form.prefix[0]).endswith("<extra_id_0>")


def test_labels_have_it_and_answers_lose_it(form):
    plain = form.vocabulary.encode_labels(["True", "entailment"])
    found = form.encode_labels(["True", "entailment"])
    assert found[:, 0].tolist() == [*form.prefix] * 2
    assert np.array_equal(found[:, 1:], plain)
    assert np.array_equal(TargetForm(form.vocabulary).encode_labels(["True", "entailment"]), plain)
    assert [form.decode(row) for row in found] == ["True", "entailment"]
    assert form.decode(plain[1]) == "entailment", "an answer without it stays what it is"
    assert form.decode([*form.prefix, *found[0]]) == "<extra_id_0> True", "one is taken off"
    assert TargetForm(form.vocabulary).decode(found[0]) == "<extra_id_0> True"


def test_a_vocabulary_without_sentinels_is_refused(tiny_vocabulary_file):
    with pytest.raises(UserError, match="has no sentinels.*data.target_sentinel"):
        TargetForm(Vocabulary(tiny_vocabulary_file, extra_ids=0), True)
