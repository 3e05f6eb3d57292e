"""The vocabulary without TensorFlow: T5's ids, bad files."""

import hashlib

import numpy as np
import pytest
import sentencepiece

from prompt_tuning.data.tasks.task import get_task, list_tasks
from prompt_tuning.data.vocabularies import Vocabulary, vocabulary_hash
from prompt_tuning.errors import UserError


def test_t5_ids(t5_vocabulary):
    assert len(t5_vocabulary) == 32_100
    assert t5_vocabulary.encode("entailment") == [3, 35, 5756, 297]
    ids = t5_vocabulary.encode("<extra_id_0> park <extra_id_99>")
    assert ids == [32_099, 2447, 32_000]
    assert t5_vocabulary.piece(32_099) == "▁<extra_id_0>"
    assert t5_vocabulary.piece(32_127) == "<unused_32127>"
    expected = "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"
    assert t5_vocabulary.hash == vocabulary_hash(t5_vocabulary.path) == expected


def test_sentinels_are_appended_from_the_last_down(tiny_vocabulary):
    plain = Vocabulary(tiny_vocabulary.path, extra_ids=0)
    assert len(tiny_vocabulary) == len(plain) + 4
    assert [tiny_vocabulary.piece(len(plain) + i) for i in range(4)] == [
        f"▁<extra_id_{i}>" for i in (3, 2, 1, 0)
    ]


def test_decode_stops_at_the_first_end_of_sequence(tiny_vocabulary):
    ids = tiny_vocabulary.encode("A cat sat.")
    assert tiny_vocabulary.decode(ids) == "A cat sat."
    assert tiny_vocabulary.decode([*ids, 1, *ids]) == "A cat sat."
    assert tiny_vocabulary.decode(np.array([*ids, 0, 0])) == "A cat sat."
    assert tiny_vocabulary.decode([0, 0]) == ""


def test_decode_takes_ids_beyond_the_vocabulary_as_unknown(tiny_vocabulary):
    assert tiny_vocabulary.decode([len(tiny_vocabulary) + 5]) == tiny_vocabulary.decode([2])


def test_labels_are_padded_with_end_of_sequence(t5_vocabulary):
    np.testing.assert_array_equal(
        t5_vocabulary.encode_labels(["entailment", "not_entailment"]),
        [[3, 35, 5756, 297, 1, 0], [59, 834, 35, 5756, 297, 1]],
    )


@pytest.mark.parametrize("label", ["是", "two  spaces", "{yes}", " yes"])
def test_a_label_that_the_vocabulary_can_not_spell(t5_vocabulary, label):
    for check in (t5_vocabulary.check_labels, t5_vocabulary.encode_labels):
        with pytest.raises(UserError, match="comes back from the vocabulary") as caught:
            check(["yes", label])
        assert repr(label) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_t5_spells_the_labels_of_every_task(t5_vocabulary):
    for name in list_tasks():
        t5_vocabulary.check_labels(get_task(name).labels or ())


def test_hash_is_the_files_sha256(tiny_vocabulary):
    assert tiny_vocabulary.hash == hashlib.sha256(tiny_vocabulary.path.read_bytes()).hexdigest()


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no.model cannot be read.*No such file"):
        Vocabulary(tmp_path / "no.model")


@pytest.mark.parametrize("content", [b"", b"hello, I am text\n" * 50, bytes(range(256))])
def test_file_that_is_no_sentencepiece_model(tmp_path, content):
    path = tmp_path / "bad.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match="bad.model is not a SentencePiece model") as raised:
        Vocabulary(path)
    assert "\n" not in str(raised.value)


def test_model_with_other_special_ids(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g"] * 10),
        model_prefix=str(tmp_path / "other"),
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(UserError, match=r"pad, eos, unk ids \(-1, 2, 0\); T5 needs \(0, 1, 2\)"):
        Vocabulary(tmp_path / "other.model")
