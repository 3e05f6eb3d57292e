"""Text to batches of span corruption and LM adaptation: streaming, seeds, and real text."""

import gzip
import json
import re

import numpy as np
import pytest

from prompt_tuning.data.corpora import (
    PretrainingStream,
    c4_text,
    held_out,
    text_files,
    tokenized_text,
)
from prompt_tuning.data.vocabularies import ByteVocabulary
from prompt_tuning.errors import UserError

DOCUMENTS = ["A cat sat on the mat.", "Rain fell.", "Two dogs ran home.", "Ann met Bob in Rome."]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(DOCUMENTS * 20), encoding="utf-8")
    return path


@pytest.fixture
def ids(text_file, tiny_vocabulary, tmp_path):
    text = text_files(text_file)
    return tokenized_text(text, tiny_vocabulary, max_tokens=10**6, cache_dir=tmp_path)


def stream(ids, vocabulary, objective="lm_adaptation", **options) -> PretrainingStream:
    options = {"batch_size": 2, "seed": 0, "input_length": 24} | options
    return PretrainingStream(ids, vocabulary, objective=objective, **options)


def test_documents_of_text_and_jsonl(tmp_path, text_file):
    packed = tmp_path / "c4-train.00000-of-01024.json.gz"
    rows = "".join(json.dumps({"text": text, "url": "u"}) + "\n" for text in DOCUMENTS)
    packed.write_bytes(gzip.compress(rows.encode()))
    assert list(text_files(packed, text_file).documents()) == [*DOCUMENTS, *DOCUMENTS * 20]

    packed.write_bytes(gzip.compress(b'{"body": "A cat."}\n'))
    with pytest.raises(UserError, match=f"{packed}:1: no field 'text'; found 'body'"):
        list(text_files(packed).documents())
    with pytest.raises(UserError, match="absent.txt does not exist"):
        text_files(tmp_path / "absent.txt")


def test_markup_can_be_dropped(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("Plain.\nIt is formula_12 here.\n| table\n{{cite}}\n[[link]]\na <br /> b\n")
    assert list(text_files(path, drop_markup=True).documents()) == ["Plain."]
    assert len(list(text_files(path).documents())) == 6


def test_documents_are_kept_back_by_a_hash(tmp_path):
    path = tmp_path / "text.txt"
    lines = [f"Document {i}." for i in range(500)]

    def parts(lines, share=0.2):
        path.write_text("\n".join(lines))
        return [list(part.documents()) for part in held_out(text_files(path), share)]

    train, kept = parts(lines)
    assert sorted([*train, *kept]) == sorted(lines) and 60 < len(kept) < 140
    # Neither order nor copies make a difference.
    assert set(parts(lines[::-1] * 2)[1]) == set(kept)
    assert set(parts(lines, 0.5)[1]) > set(kept)
    names = {part.name for share in (0.2, 0.5) for part in held_out(text_files(path), share)}
    assert len(names) == 4, "each is cached by itself"
    for share in (0.0, 1.0, 1.5):
        with pytest.raises(UserError, match="held-out share is .*; expected one such as 0.01"):
            held_out(text_files(path), share)


def test_ids_are_the_documents_end_to_end(ids, text_file, tiny_vocabulary, tmp_path, monkeypatch):
    expected = [id_ for document in DOCUMENTS * 20 for id_ in tiny_vocabulary.encode(document)]
    assert ids.tolist() == expected
    first = tokenized_text(text_files(text_file), tiny_vocabulary, max_tokens=100)
    assert first.tolist() == expected[:100]
    # The text isn't read again, unless it changed.
    monkeypatch.setattr("prompt_tuning.data.corpora._file_documents", lambda file: iter(["Rome"]))
    text = text_files(text_file)
    again = tokenized_text(text, tiny_vocabulary, max_tokens=10**6, cache_dir=tmp_path)
    assert again.tolist() == expected
    text_file.write_text("Rome")
    text = text_files(text_file)
    changed = tokenized_text(text, tiny_vocabulary, max_tokens=10**6, cache_dir=tmp_path)
    assert changed.tolist() == tiny_vocabulary.encode("Rome")


def test_long_text_is_written_in_parts(text_file, tiny_vocabulary, tmp_path, monkeypatch, ids):
    monkeypatch.setattr("prompt_tuning.data.corpora._WRITE_TOKENS", 50)
    text = text_files(text_file)
    other = tokenized_text(text, tiny_vocabulary, max_tokens=1000, cache_dir=tmp_path / "other")
    assert other.tolist() == ids[:1000].tolist()


def test_lm_adaptation_puts_a_piece_in_two(ids, tiny_vocabulary):
    batches = stream(ids, tiny_vocabulary)
    assert batches.shape == (24, 24)
    pieces = {tuple(ids[i : i + 23].tolist()) for i in range(0, len(ids) - 22, 23)}
    cuts = set()
    for step in range(20):
        batch = batches.batch(step)
        assert (
            batch["encoder_input_tokens"].shape == batch["decoder_target_tokens"].shape == (2, 24)
        )
        for source, target in zip(
            batch["encoder_input_tokens"], batch["decoder_target_tokens"], strict=True
        ):
            prefix, rest = source[source != 0], target[target != 0]
            assert prefix[-1] == rest[-1] == 1
            assert (*prefix[:-1].tolist(), *rest[:-1].tolist()) in pieces
            cuts.add(len(prefix) - 1)
    assert min(cuts) < 5 and max(cuts) > 18


def test_span_corruption_fills_its_shape(ids, tiny_vocabulary):
    batches = stream(ids, tiny_vocabulary, "span_corruption")
    source, target = batches.shape
    sentinels = range(len(tiny_vocabulary) - tiny_vocabulary.extra_ids, len(tiny_vocabulary))
    for step in range(5):
        batch = batches.batch(step)
        assert batch["encoder_input_tokens"].shape == (2, source)
        assert batch["decoder_target_tokens"].shape == (2, target)
        assert (batch["encoder_input_tokens"] != 0).all()
        assert (batch["decoder_loss_weights"] == 1).all()
        for row in batch["encoder_input_tokens"]:
            used = [id_ for id_ in row.tolist() if id_ in sentinels]
            assert used == sorted(used, reverse=True) and used[0] == len(tiny_vocabulary) - 1


def test_span_corruption_of_bytes_takes_the_last_ids_for_sentinels():
    ids = np.arange(3, 131).repeat(10)  # the bytes of ASCII
    inputs = stream(ids, ByteVocabulary(), "span_corruption").batch(0)["encoder_input_tokens"]
    assert [row[row > 130].tolist() for row in inputs] == [[258], [258]]


def test_inputs_and_targets_have_lengths_of_their_own(ids, tiny_vocabulary):
    for objective in ("span_corruption", "lm_adaptation"):
        batches = stream(ids, tiny_vocabulary, objective, target_length=6)
        assert batches.shape == (24, 6)
        batch = batches.batch(0)
        assert batch["encoder_input_tokens"].shape == (2, 24)
        assert batch["decoder_target_tokens"].shape == (2, 6)
        ends = batch["decoder_target_tokens"].max(axis=1) > 0
        assert ends.all() and (batch["decoder_target_tokens"] == 1).any(axis=1).all()


def test_a_batch_is_a_function_of_seed_and_step(ids, tiny_vocabulary):
    def same(a, b) -> bool:
        return all(np.array_equal(a[name], b[name]) for name in a)

    for objective in ("span_corruption", "lm_adaptation"):
        first = stream(ids, tiny_vocabulary, objective)
        resumed = stream(ids, tiny_vocabulary, objective)
        assert same(resumed.batch(7), first.batch(7))
        assert not same(first.batch(7), first.batch(8))
        assert not same(first.batch(7), stream(ids, tiny_vocabulary, objective, seed=1).batch(7))


def test_an_epoch_sees_every_piece_once_and_the_next_in_another_order(ids, tiny_vocabulary):
    batches = stream(ids, tiny_vocabulary, batch_size=1)
    count = int(batches.steps_per_epoch)
    numbered = np.arange(len(ids)) + 10  # every token tells its place
    batches = stream(numbered, tiny_vocabulary, batch_size=1)

    def starts(epoch: int) -> list[int]:
        steps = range(epoch * count, (epoch + 1) * count)
        return [int(batches.batch(step)["encoder_input_tokens"][0, 0]) for step in steps]

    assert sorted(starts(0)) == sorted(starts(1)) == list(range(10, 10 + 23 * count, 23))
    assert starts(0) != starts(1)


def test_what_is_refused(tmp_path, ids, tiny_vocabulary):
    with pytest.raises(UserError, match="has 10 tokens; .* inputs of 24 tokens needs at least 23"):
        stream(ids[:10], tiny_vocabulary)
    with pytest.raises(UserError, match="need 7 sentinels, but the vocabulary has 4"):
        stream(ids, tiny_vocabulary, "span_corruption", input_length=128)
    empty = tmp_path / "empty.txt"
    empty.write_text("\n\n")
    with pytest.raises(UserError, match="There is no text"):
        tokenized_text(text_files(empty), tiny_vocabulary, max_tokens=10, cache_dir=tmp_path)


def test_c4_comes_from_tfds(tmp_path):
    folder = str(tmp_path / "tfds")
    with pytest.raises(UserError, match="c4/en is not in .*, and preparing it needs a cluster"):
        list(c4_text(data_dir=folder).documents())

    from prompt_tuning.data.quiet_tensorflow import tf, tfds

    builder = tfds.builder("c4/en", data_dir=folder)
    rows = dict.fromkeys(builder.info.features, DOCUMENTS)
    tfds.dataset_builders.store_as_tfds_dataset(
        name="c4",
        config="en",
        version=builder.version,
        features=builder.info.features,
        split_datasets={"validation": tf.data.Dataset.from_tensor_slices(rows)},
        data_dir=folder,
    )
    assert sorted(c4_text("validation", data_dir=folder).documents()) == sorted(DOCUMENTS)


def test_real_text_with_the_real_vocabulary(real_data, t5_vocabulary, tmp_path):
    text = text_files(real_data / "corpus" / "enwiki_2015_core_100mb.txt.xz", drop_markup=True)
    ids = tokenized_text(text, t5_vocabulary, max_tokens=100_000, cache_dir=tmp_path)
    assert len(ids) == 100_000 and ids.dtype == np.uint16
    assert t5_vocabulary.decode(ids[:12]).startswith("Anarchism Anarchism is a political")

    batch = stream(ids, t5_vocabulary, "span_corruption", input_length=512).batch(0)
    assert batch["encoder_input_tokens"].shape == (2, 512)
    assert batch["decoder_target_tokens"].shape == (2, 114)
    inputs = t5_vocabulary.decode(batch["encoder_input_tokens"][0])
    assert re.search(r"<extra_id_0> .*<extra_id_27>", inputs)
    batch = stream(ids, t5_vocabulary, input_length=64).batch(0)
    assert not set(t5_vocabulary.decode(batch["decoder_target_tokens"][0])) & set("{|[")
