"""The token cache: SeqIO's tokens, keyed by all they depend on, read without TensorFlow."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from prompt_tuning.data.split_notes import split_notes
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tasks.task import Example
from prompt_tuning.data.tokenized import Ragged, tokenized
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError

LENGTHS = {"inputs": 512, "targets": 32}
RTE = dataclasses.replace(get_task("superglue_rte"), lengths=LENGTHS)


@pytest.fixture
def options(tiny_superglue, tiny_vocabulary, tmp_path):
    return dict(vocabulary=tiny_vocabulary, data_dir=str(tiny_superglue), cache_dir=tmp_path)


@pytest.fixture
def tokenizations(monkeypatch):
    """Puts plain Python in SeqIO's place, which is slower to set up, and notes each use."""
    from prompt_tuning.data import seqio_tasks

    uses = []

    def tokenize(task, split, vocabulary, lengths, data_dir):
        uses.append(task.name)
        for example in task.examples(split, data_dir):
            ids = {name: vocabulary.encode(getattr(example, name)) for name in lengths}
            yield {
                **{name: np.array([*ids[name][: lengths[name] - 1], 1]) for name in ids},
                **{f"{name}_full_length": len(ids[name]) + 1 for name in ids},
                "inputs_pretokenized": example.inputs.encode(),
                "shortened": example.shortened,
                "metadata": json.dumps({"targets": example.targets}).encode(),
            }

    monkeypatch.setattr(seqio_tasks, "tokenize", tokenize)
    return uses


def test_tokens_and_metadata(options, tiny_vocabulary):
    split = tokenized(RTE, "train", lengths={"inputs": 512, "targets": 32}, **options)
    assert len(split) == 3
    expected = tiny_vocabulary.encode("hypothesis: A cat sat. premise: A cat sat on the mat.")
    assert split.inputs[0].tolist() == [*expected, 1]
    assert split.targets[1].tolist() == [*tiny_vocabulary.encode("not_entailment"), 1]
    assert split.metadata[1] == {"targets": "not_entailment", "idx": 1}
    assert split.inputs.lengths.tolist() == [len(split.inputs[i]) for i in range(3)]


def test_truncation_keeps_end_of_sequence_and_is_counted(options):
    whole = tokenized(RTE, "train", **options)
    longest = int(whole.inputs.lengths.max())
    assert whole.truncated["inputs"] == 0
    cut = tokenized(RTE, "train", lengths={"inputs": longest - 1, "targets": 512}, **options)
    assert cut.truncated == {"inputs": 1, "targets": 0}
    row = int(whole.inputs.lengths.argmax())
    assert cut.inputs[row].tolist() == [*whole.inputs[row][: longest - 2].tolist(), 1]
    assert list(split_notes(cut, options["vocabulary"])) == [
        f"superglue_rte train: 1 of 3 examples have inputs longer than {longest - 1} tokens and "
        f"were truncated (TASK_FEATURE_LENGTHS); the longest have {longest}."
    ]
    free = dataclasses.replace(RTE, labels=None)
    lengths = {"inputs": longest, "targets": 1}
    assert tokenized(free, "train", lengths=lengths, **options).truncated == {
        "inputs": 0,
        "targets": 3,
    }


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("cb", {"inputs": 512, "targets": 8}),
        ("wsc", {"inputs": 20, "targets": 2}),
        ("record", {"inputs": 40, "targets": 4}),
    ],
)
def test_equals_seqios_own_pipeline(tiny_superglue, t5_vocabulary, tmp_path, name, lengths):
    """`seqio.get_dataset` on the registered task, unpadded, is what we keep."""
    from prompt_tuning.data import seqio_tasks
    from prompt_tuning.data.quiet_tensorflow import seqio

    task = get_task(f"superglue_{name}")
    seqio_tasks.register(t5_vocabulary, {task.name: str(tiny_superglue)})
    dataset = seqio.get_dataset(
        task.name,
        lengths,
        seqio.EncDecFeatureConverter(pack=False),
        dataset_split="train",
        shuffle=False,
    )
    ours = tokenized(
        task,
        "train",
        vocabulary=t5_vocabulary,
        lengths=lengths,
        data_dir=str(tiny_superglue),
        cache_dir=tmp_path,
    )
    rows = list(dataset.as_numpy_iterator())
    assert len(rows) == len(ours)
    for i, row in enumerate(rows):
        for name, ragged in (
            ("encoder_input_tokens", ours.inputs),
            ("decoder_target_tokens", ours.targets),
        ):
            padding = len(row[name]) - len(ragged[i])
            np.testing.assert_array_equal(row[name], np.pad(ragged[i], (0, padding)))


def test_second_use_reads_the_cache(options, tokenizations):
    first = tokenized(RTE, "train", **options)
    second = tokenized(RTE, "train", **options)
    assert len(tokenizations) == 1
    np.testing.assert_array_equal(first.inputs.values, second.inputs.values)
    np.testing.assert_array_equal(first.targets.offsets, second.targets.offsets)
    assert first.metadata == second.metadata
    assert first.truncated == second.truncated


def test_whatever_changes_the_tokens_changes_the_file(
    options, tokenizations, tmp_path, tiny_superglue, t5_vocabulary
):
    folder = tmp_path / "changed"
    shutil.copytree(tiny_superglue, folder)
    path = folder / "RTE" / "train.jsonl"
    path.write_text(path.read_text().replace("Rain", "Snow"))
    variants = [
        (RTE, {}),
        (RTE, {"lengths": {"inputs": 9, "targets": 32}}),
        (RTE, {"vocabulary": t5_vocabulary}),
        (RTE, {"vocabulary": Vocabulary(options["vocabulary"].path, extra_ids=0)}),
        (RTE, {"data_dir": str(folder)}),
        (get_task("superglue_rte_with_name"), {"lengths": LENGTHS}),
    ]
    for task, changes in variants:
        tokenized(task, "train", **(options | changes))
    assert len(tokenizations) == len(variants)
    assert len(list((options["cache_dir"] / "tokens").iterdir())) == len(variants)


def test_damaged_file_is_made_anew(options, tokenizations):
    whole = tokenized(RTE, "train", **options)
    (path,) = (options["cache_dir"] / "tokens").iterdir()
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not an archive"):
        path.write_bytes(damaged)
        again = tokenized(RTE, "train", **options)
        np.testing.assert_array_equal(again.inputs.values, whole.inputs.values)
    assert len(tokenizations) == 4


def test_second_run_does_not_import_tensorflow(options, tmp_path):
    """In a fresh process: batches of a cached split, and everything they need."""
    tokenized(RTE, "train", **options)
    program = """
import json, sys
from pathlib import Path
from prompt_tuning.data.batching import BatchStream, eval_batches
from prompt_tuning.data.mixtures import get_tasks
from prompt_tuning.data.tokenized import tokenized
from prompt_tuning.data.vocabularies import Vocabulary

vocabulary, data_dir, cache_dir = sys.argv[1:]
(task,) = get_tasks("superglue_rte")
split = tokenized(task, "train", vocabulary=Vocabulary(vocabulary, extra_ids=4),
                  lengths={"targets": 32}, data_dir=data_dir, cache_dir=Path(cache_dir))
BatchStream(split, batch_size=2, seed=0).batch(0)
list(eval_batches(split, 2))
heavy = ("tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio", "jax", "torch", "flax")
print(json.dumps([len(split), [name for name in heavy if name in sys.modules]]))
"""
    arguments = [options["vocabulary"].path, options["data_dir"], options["cache_dir"]]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [3, []]
    assert done.stderr == ""


def test_empty_split(options, tmp_path):
    (tmp_path / "RTE").mkdir()
    (tmp_path / "RTE" / "train.jsonl").write_text("\n")
    with pytest.raises(
        UserError, match=f"Split 'train' of task 'superglue_rte' in {tmp_path} has no"
    ):
        tokenized(RTE, "train", **(options | {"data_dir": str(tmp_path)}))


@pytest.mark.parametrize("targets", [["a ñb", "a b", "½ a"], ["", "a", "a\tb"]])
def test_targets_that_the_vocabulary_can_not_spell(options, tokenizations, targets):
    rows = iter(targets * 2)  # rendered for the file's name, then for its contents
    free = dataclasses.replace(
        RTE,
        labels=None,
        render=lambda row, training: [Example(inputs="a", targets=next(rows))],
    )
    split = tokenized(free, "train", **options)
    bad = [text for text in targets if text not in ("a b", "a", "")]
    assert split.facts.unspelled.tolist() == [text in bad for text in targets]
    notes = list(split_notes(split, options["vocabulary"]))
    assert f"{len(bad)} of 3 targets change when they are encoded and decoded" in notes[-1]
    assert f"the first is {bad[0]!r}, which becomes" in notes[-1]
    assert ("1 of 3 examples have empty targets" in notes[0]) == ("" in targets)


def test_rows_of_a_split_take_their_facts_along(options):
    split = tokenized(RTE, "train", **options)
    taken = split.take(np.array([2, 0]))
    assert [taken.inputs[i].tolist() for i in (0, 1)] == [
        split.inputs[2].tolist(),
        split.inputs[0].tolist(),
    ]
    assert taken.metadata == [split.metadata[2], split.metadata[0]]
    assert taken.facts.full_lengths["inputs"].tolist() == taken.inputs.lengths.tolist()


def test_texts_are_kept_of_what_is_scored(options):
    (text, *others), again = (tokenized(RTE, "validation", **options).texts for _ in range(2))
    assert text.startswith("hypothesis: ") and [text, *others] == again
    split = tokenized(RTE, "validation", lengths={"inputs": 9}, **options)
    assert split.texts == again, "cut inputs are shown whole"
    assert split.take(np.array([1])).texts == again[1:2]
    assert tokenized(RTE, "train", **options).texts == []


def test_a_label_that_targets_have_no_room_for(options):
    tokens = len(options["vocabulary"].encode("not_entailment")) + 1
    message = (
        f"The label 'not_entailment' has {tokens} tokens with end of sequence, but targets may "
        f"have only {tokens - 1}.*set TASK_FEATURE_LENGTHS to {{'targets': {tokens}}}"
    )
    with pytest.raises(UserError, match=message):
        tokenized(RTE, "train", lengths={"targets": tokens - 1}, **options)


def test_a_label_that_the_vocabulary_can_not_spell(options):
    """However the answers are found: generated text could never equal it."""
    odd = dataclasses.replace(RTE, labels=("entailment", "two  words"))
    with pytest.raises(
        UserError, match="label 'two  words' becomes 'two words' when the vocabulary"
    ):
        tokenized(odd, "train", **options)


def test_unwritable_cache(options, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Can't write .*PROMPT_TUNING_CACHE"):
        tokenized(RTE, "train", **(options | {"cache_dir": tmp_path / "file"}))


def test_metadata_with_line_breaks_and_other_scripts(options, tmp_path):
    odd = dataclasses.replace(
        RTE,
        labels=None,
        render=lambda row, training: [
            Example(inputs="a", targets="b", metadata={"text": "é\n\u2028\x85 ß"})
        ],
    )
    split = tokenized(odd, "train", **options)
    assert [example["text"] for example in split.metadata] == ["é\n\u2028\x85 ß"] * 3


def test_ragged():
    ragged = Ragged(np.array([5, 6, 7]), np.array([0, 2, 2, 3]))
    assert [ragged[i].tolist() for i in range(len(ragged))] == [[5, 6], [], [7]]
    assert ragged.lengths.tolist() == [2, 0, 1]
