"""A task's examples as token ids, cached on disk.

The first use of a split tokenizes it with SeqIO (`seqio_tasks.py`) and writes a `.npz` file. Later
uses read it and never import TensorFlow. The file is named by a hash of everything it depends on:
the task, the vocabulary, the feature lengths, and the text, which is rendered at each use. So a
changed source file or text format is tokenized again. `batching.py` makes the batches.
"""

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Int

from prompt_tuning.data.feature_lengths import FEATURES, check_label_lengths, feature_lengths
from prompt_tuning.data.shortening import fit_inputs
from prompt_tuning.data.tasks.task import Task, is_withheld
from prompt_tuning.data.vocabularies import PAD_ID, Vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.files import cache_file, default_cache_dir

if TYPE_CHECKING:
    from prompt_tuning.data.seqio_tasks import TokenizedExample

Watch = Callable[[Iterable["TokenizedExample"], str, int], Iterable["TokenizedExample"]]
"""Wraps an iterable of examples, given a description and their number, to show progress."""

_FORMAT = 4
"""Version of the file, part of its key: raise it when the contents change meaning."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, concatenated.

    Attributes:
      values: all rows' token ids.
      offsets: the start of each row, and the end of the last.
    """

    values: Int[np.ndarray, "tokens"]
    offsets: Int[np.ndarray, "offsets"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int | np.integer) -> Int[np.ndarray, "length"]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int[np.ndarray, "rows"]:
        """The number of tokens of each row."""
        return np.diff(self.offsets)

    def take(self, rows: Int[np.ndarray, "rows"]) -> "Ragged":
        """Returns these rows, at least one."""
        return Ragged(np.concatenate([self[row] for row in rows]), _offsets(self.lengths[rows]))


@dataclass(frozen=True, kw_only=True)
class RowFacts:
    """Facts about each example, found during tokenization.

    Attributes:
      full_lengths: tokens with end of sequence before truncation, by feature.
      limits: the maximum length of each feature, in tokens.
      unspelled: whether the targets' text doesn't survive encoding and decoding.
      shortened: whether the inputs' column `Task.shorten` was shortened.
    """

    full_lengths: Mapping[str, Int[np.ndarray, "rows"]]
    limits: Mapping[str, int]
    unspelled: Bool[np.ndarray, "rows"]
    shortened: Bool[np.ndarray, "rows"]

    @property
    def cut(self) -> dict[str, int]:
        """The number of truncated examples, by feature."""
        return {
            name: int(np.count_nonzero(lengths > self.limits[name]))
            for name, lengths in self.full_lengths.items()
        }

    def take(self, rows: Int[np.ndarray, "rows"]) -> "RowFacts":
        """Returns the facts of these rows."""
        return RowFacts(
            full_lengths={name: found[rows] for name, found in self.full_lengths.items()},
            limits=self.limits,
            unspelled=self.unspelled[rows],
            shortened=self.shortened[rows],
        )


_NOTHING = np.zeros(0, bool)
NO_FACTS = RowFacts(full_lengths={}, limits={}, unspelled=_NOTHING, shortened=_NOTHING)
"""The facts of a split that wasn't tokenized from text."""


@dataclass(frozen=True, kw_only=True)
class TokenizedSplit:
    """The examples of one split, truncated, with end of sequence.

    Attributes:
      task: the task's name.
      split: the split's name.
      inputs: encoder tokens of each example.
      targets: decoder targets of each example.
      metadata_json: the metrics' data about each example, one JSON line each.
      facts: other facts about each example.
      texts_json: the text of each example's inputs, one JSON line each; empty for the training
        split, which is never shown.
      pad_id: the id that batches are padded with.
    """

    task: str
    split: str
    inputs: Ragged
    targets: Ragged
    metadata_json: bytes
    facts: RowFacts = NO_FACTS
    texts_json: bytes = b""
    pad_id: int = PAD_ID

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def truncated(self) -> Mapping[str, int]:
        """The number of truncated examples, by feature."""
        return self.facts.cut

    @functools.cached_property
    def metadata(self) -> list[dict[str, Any]]:
        """The metadata of each example: its "targets" text, "idx" and the task's additions."""
        return [json.loads(line) for line in self.metadata_json.splitlines()]

    @functools.cached_property
    def texts(self) -> list[str]:
        """The text of each example's inputs before truncation; empty if unknown."""
        return [json.loads(line) for line in self.texts_json.splitlines()]

    def take(self, rows: Int[np.ndarray, "rows"]) -> "TokenizedSplit":
        """Returns a split of these rows, at least one."""
        return dataclasses.replace(
            self,
            inputs=self.inputs.take(rows),
            targets=self.targets.take(rows),
            metadata_json=_take_lines(self.metadata_json, rows),
            facts=self.facts.take(rows),
            texts_json=_take_lines(self.texts_json, rows),
        )


def _take_lines(text: bytes, rows: Int[np.ndarray, "rows"]) -> bytes:
    lines = text.splitlines()
    return b"\n".join(lines[row] for row in rows) if lines else b""


def tokenized(
    task: Task,
    split: str,
    *,
    vocabulary: Vocabulary,
    lengths: Mapping[str, int] | None = None,
    data_dir: str | None = None,
    cache_dir: Path | None = None,
    watch: Watch | None = None,
) -> TokenizedSplit:
    """Returns a split as token ids, from the cache if possible.

    Args:
      task: the task.
      split: "train", "validation" or "test".
      vocabulary: the frozen model's.
      lengths: maximum lengths of "inputs" and "targets" in tokens with end of sequence, by
        default the task's; longer examples are truncated before end of sequence, as in SeqIO.
      data_dir: the folder of the source, as for `Task.source`.
      cache_dir: the folder of token ids; `default_cache_dir()` if None.
      watch: shows progress of tokenization.

    Raises:
      UserError: the source, the lengths or a label is bad, the split is empty, or the cache
        can't be written.
    """
    lengths = feature_lengths(lengths, task.lengths)
    check_label_lengths(task.labels or (), vocabulary, lengths["targets"])
    key, size = _key(task, split, vocabulary, lengths, data_dir)
    path = (cache_dir or default_cache_dir()) / "tokens" / f"{task.name}-{split}-{key[:16]}.npz"
    found = _read(path, task, split, lengths)
    if found is None:
        from prompt_tuning.data.seqio_tasks import tokenize  # imports TensorFlow

        fitted = fit_inputs(task, vocabulary, lengths["inputs"])
        examples = tokenize(fitted, split, vocabulary, lengths, data_dir)
        if watch is not None:
            examples = watch(examples, f"Tokenizing {task.name} {split}", size)
        _write(path, examples, task, split, vocabulary)
        found = _read(path, task, split, lengths)
        assert found is not None, f"{path} was just written and cannot be read"
    return dataclasses.replace(found, pad_id=vocabulary.pad_id)


def _key(
    task: Task,
    split: str,
    vocabulary: Vocabulary,
    lengths: Mapping[str, int],
    data_dir: str | None,
) -> tuple[str, int]:
    """Returns a hash of everything the tokens depend on, and the number of examples."""
    shortening = task.shorten
    header = [_FORMAT, task.name, split, vocabulary.hash, vocabulary.extra_ids, lengths, shortening]
    if vocabulary.bos_id is not None:
        header.append(vocabulary.bos_id)
    digest = hashlib.sha256(json.dumps(header).encode())
    count = 0
    for example in task.examples(split, data_dir):
        text = json.dumps([example.inputs, example.targets, example.scoring_metadata])
        digest.update(text.encode() + b"\n")
        count += 1
    if count == 0:
        where = f" in {data_dir}" if data_dir else ""
        raise UserError(f"Split {split!r} of task {task.name!r}{where} has no examples.")
    return digest.hexdigest(), count


def _write(
    path: Path,
    examples: Iterable["TokenizedExample"],
    task: Task,
    split: str,
    vocabulary: Vocabulary,
) -> None:
    # Labels have been checked, and withheld targets aren't trained on.
    can_spell = functools.lru_cache(vocabulary.can_spell)
    rows: dict[str, list[np.ndarray]] = {name: [] for name in FEATURES}
    full_lengths: dict[str, list[int]] = {name: [] for name in FEATURES}
    unspelled, shortened = [], []
    metadata, texts = [], []
    for example in examples:
        for name in FEATURES:
            rows[name].append(example[name])
            full_lengths[name].append(example[f"{name}_full_length"])
        known = json.loads(example["metadata"])
        unspelled.append(not (task.labels or is_withheld(known) or can_spell(known["targets"])))
        shortened.append(example["shortened"])
        metadata.append(example["metadata"])
        if split != "train":
            texts.append(json.dumps(example["inputs_pretokenized"].decode()).encode())

    arrays: dict[str, Any] = {
        "metadata": np.frombuffer(b"\n".join(metadata), np.uint8),
        "texts": np.frombuffer(b"\n".join(texts), np.uint8),
        "unspelled": np.array(unspelled, bool),
        "shortened": np.array(shortened, bool),
    }
    for name in FEATURES:
        arrays[f"{name}_values"] = np.concatenate(rows[name]).astype(np.int32)
        arrays[f"{name}_offsets"] = _offsets([len(row) for row in rows[name]])
        arrays[f"{name}_full_lengths"] = np.array(full_lengths[name], np.int32)
    with cache_file(path) as file:
        np.savez(file, **arrays)


def _offsets(lengths: Sequence[int] | np.ndarray) -> Int[np.ndarray, "offsets"]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _read(path: Path, task: Task, split: str, lengths: Mapping[str, int]) -> TokenizedSplit | None:
    """Returns the file's split, or None if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return TokenizedSplit(
        task=task.name,
        split=split,
        inputs=Ragged(arrays["inputs_values"], arrays["inputs_offsets"]),
        targets=Ragged(arrays["targets_values"], arrays["targets_offsets"]),
        metadata_json=arrays["metadata"].tobytes(),
        texts_json=arrays["texts"].tobytes(),
        facts=RowFacts(
            full_lengths={name: arrays[f"{name}_full_lengths"] for name in FEATURES},
            limits=lengths,
            unspelled=arrays["unspelled"],
            shortened=arrays["shortened"],
        ),
    )
