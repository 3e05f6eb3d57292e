"""The vocabularies: T5's ids, mT5's and ByT5's, where they are found, bad files."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import varied_lines
from sentencepiece import sentencepiece_model_pb2

from prompt_tuning.data.seqio_tasks import seqio_task
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.data.vocabularies import (
    ByteVocabulary,
    Vocabulary,
    vocabulary_hash,
)
from prompt_tuning.data.vocabulary_files import find_vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path


def test_t5_ids(t5_vocabulary):
    assert len(t5_vocabulary) == 32_100
    assert t5_vocabulary.encode("entailment") == [3, 35, 5756, 297]
    ids = t5_vocabulary.encode("<extra_id_0> park <extra_id_99>")
    assert ids == [32_099, 2447, 32_000]
    assert t5_vocabulary.piece(32_099) == "▁<extra_id_0>"
    assert t5_vocabulary.piece(32_127) == "<unused_32127>"
    expected = "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"
    assert t5_vocabulary.hash == vocabulary_hash(t5_vocabulary.path) == expected


def test_ids_are_those_of_the_slow_t5_tokenizer_on_a_thousand_lines(t5_vocabulary, real_data):
    lines = varied_lines.varied_lines(real_data)
    expected = varied_lines.GOLDEN.read_text().split()
    assert len(lines) == len(expected) == 1000
    found = [varied_lines.digest(t5_vocabulary.encode(line)) for line in lines]
    assert [line for line, f, e in zip(lines, found, expected, strict=True) if f != e] == []


def test_the_hundred_sentinels_are_numbered_down_from_the_last_id(t5_vocabulary):
    sentinels = " ".join(f"<extra_id_{i}>" for i in range(100))
    assert t5_vocabulary.encode(sentinels) == list(range(32_099, 31_999, -1))
    assert t5_vocabulary.num_pieces == 32_000


def test_seqio_has_the_same_ids(tiny_vocabulary):
    text = "A cat <extra_id_0> sat on the mat. é"
    for vocabulary in (tiny_vocabulary, ByteVocabulary()):
        theirs = vocabulary.seqio()
        ids = vocabulary.encode(text)
        assert theirs.encode(text) == theirs.encode_tf(text).numpy().tolist() == ids
        assert theirs.vocab_size == len(vocabulary)
        assert theirs.decode([*ids, 1]) == vocabulary.decode([*ids, 1, 0])


def test_sentinels_that_the_file_holds_are_not_appended_again(tiny_vocabulary, tmp_path):
    """As mT5's file holds them: its last pieces, `<extra_id_0>` the very last."""
    model = sentencepiece_model_pb2.ModelProto.FromString(tiny_vocabulary.path.read_bytes())
    for i in reversed(range(100)):
        model.pieces.add(piece=f"▁<extra_id_{i}>", type=model.SentencePiece.USER_DEFINED)
    (tmp_path / "mt5.model").write_bytes(model.SerializeToString())
    vocabulary = Vocabulary(tmp_path / "mt5.model")
    pieces = len(tiny_vocabulary) - tiny_vocabulary.extra_ids
    assert (len(vocabulary), vocabulary.num_pieces) == (pieces + 100, pieces)
    assert vocabulary.extra_ids == 0
    assert vocabulary.encode("<extra_id_0>") == [len(vocabulary) - 1]
    assert vocabulary.seqio().vocab_size == len(vocabulary)


def test_bytes_are_byt5s_ids():
    """The ids are those of `transformers`' ByT5 tokenizer, which is slow still."""
    from transformers import ByT5Tokenizer

    vocabulary, theirs = find_vocabulary("byt5"), ByT5Tokenizer()
    for text in ("Life is like a box of chocolates.", "é日本\t🎉 \n"):
        ids = vocabulary.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert vocabulary.decode([*ids, 1, 0]) == text
    assert [vocabulary.piece(i) for i in (1, 68, 200, 300)] == [
        "</s>",
        "A",
        "<0xC5>",
        "<unused_300>",
    ]
    assert vocabulary.decode([3 + 0xC3, 68]) == "A", "half a character is nothing"
    assert len(vocabulary) == vocabulary.num_pieces == 259
    assert len(vocabulary.hash) == 64


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.model"])
def test_it_is_found_in_a_checkpoints_folder(tiny_vocabulary, tmp_path, name):
    shutil.copy(tiny_vocabulary.path, tmp_path / name)
    found = find_vocabulary(tmp_path)
    assert found.path == tmp_path / name
    assert found.hash == tiny_vocabulary.hash


def test_codet5s_vocabulary_is_refused_by_name(tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"byte-level BPE vocabulary \(merges.txt\), as CodeT5"):
        find_vocabulary(tmp_path)


def test_byt5s_folder_is_known_by_its_tokenizer(tmp_path):
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    assert isinstance(find_vocabulary(tmp_path), ByteVocabulary)
    config.write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    with pytest.raises(UserError, match="contains no vocabulary .*spiece.model.*VOCABULARY_PATH"):
        find_vocabulary(tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, "[1]", "{", ""])
def test_another_tokenizers_config_is_no_byt5s(tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match="Can't read .*tokenizer_config.json"):
        find_vocabulary(tmp_path)


def test_it_is_read_from_a_bucket(tiny_vocabulary, bucket):
    as_path("gs://bucket/t5/spiece.model").write_bytes(Path(tiny_vocabulary.path).read_bytes())
    for path in ("gs://bucket/t5/spiece.model", "gs://bucket/t5"):
        vocabulary = find_vocabulary(path, extra_ids=4)
        assert vocabulary.encode("A cat sat.") == tiny_vocabulary.encode("A cat sat.")
        assert str(vocabulary.path) == "gs://bucket/t5/spiece.model"
        assert vocabulary.hash == tiny_vocabulary.hash
    with pytest.raises(UserError, match="gs://bucket/t5/no.model cannot be read"):
        find_vocabulary("gs://bucket/t5/no.model")


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
        with pytest.raises(UserError, match="when the vocabulary") as caught:
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


def test_padding_that_the_models_config_names(tmp_path):
    """MADLAD-400's file has none: <unk>, <s>, </s>; its config.json pads with <s>."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f g"] * 10),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "config.json").write_text('{"pad_token_id": 1}')
    vocabulary = find_vocabulary(tmp_path)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (1, 2, 0)
    a, b = vocabulary.encode("a")[-1], vocabulary.encode("b")[-1]
    assert vocabulary.decode([a, b, 2, a]) == "ab"
    assert vocabulary.decode([a, 1, 1]) == "a"
    found = vocabulary.encode_labels(["a", "a b"])
    assert found[0, -1] == 1 and (found == 2).sum() == 2
    task = seqio_task(get_task("superglue_rte"), vocabulary)
    assert task.output_features["inputs"].vocabulary.eos_id == 2


def test_a_bucket_without_a_network_is_one_line_at_once(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", _no_network)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    for find in (find_vocabulary, Vocabulary):
        with pytest.raises(
            UserError, match="Can't reach gs://bucket/t5.model: there is no network"
        ):
            find("gs://bucket/t5.model")


def _no_network(*_):
    raise OSError("Name or service not known")


def test_a_shipped_vocabulary_is_known_by_its_name():
    for find in (find_vocabulary, Vocabulary):
        assert find("tinyworld").encode("a dog ran .") == [6, 883, 668, 3]


def test_a_saved_vocabulary_is_found_again(tiny_vocabulary, tmp_path):
    """`tiny_vocabulary` has four sentinels, which no file of SentencePiece says."""
    for number, vocabulary in enumerate((tiny_vocabulary, ByteVocabulary())):
        folder = tmp_path / str(number)
        folder.mkdir()
        vocabulary.save(folder, fix="")
        found = find_vocabulary(folder)
        assert (type(found), len(found), found.hash) == (
            type(vocabulary),
            len(vocabulary),
            vocabulary.hash,
        )


def test_a_tokenizer_config_without_a_number_of_sentinels(tiny_vocabulary, tmp_path):
    shutil.copy(tiny_vocabulary.path, tmp_path / "spiece.model")
    (tmp_path / "tokenizer_config.json").write_text('{"extra_ids": "many"}')
    with pytest.raises(UserError, match="has extra_ids='many'; expected a number of sentinels"):
        find_vocabulary(tmp_path)
