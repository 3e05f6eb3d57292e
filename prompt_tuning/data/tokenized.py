"""A task's examples as token ids, kept on disk.

The first use of a split goes through SeqIO (`seqio_tasks.py`) and writes one `.npz` file; later
uses read it and never import TensorFlow. The file is named by a hash of all that it depends on:
the task, the vocabulary, the feature lengths and the text itself, which is therefore rendered at
each use. So a changed source file or text format is tokenised anew.

Batches are made from these in `batching.py`.
"""

import functools
import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from prompt_tuning.data.sources import cache_file, default_cache_dir
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError

_FORMAT = 1
"""Part of the key: raise it when the file's contents change meaning."""


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, end to end.

    Attributes:
        values: all rows' token ids.
        offsets: where each row begins, and the end of the last.
    """

    values: Int[np.ndarray, "tokens"]
    offsets: Int[np.ndarray, "offsets"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int | np.integer) -> Int[np.ndarray, "length"]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Int[np.ndarray, "rows"]:
        """Tokens of each row."""
        return np.diff(self.offsets)


@dataclass(frozen=True, kw_only=True)
class TokenizedSplit:
    """The examples of one split, ending in end of sequence and no longer than asked.

    Attributes:
        task: the task's name.
        split: the split's name.
        inputs: encoder tokens of each example.
        targets: decoder targets of each example.
        metadata_json: what the metrics need of each example, one JSON line each.
        truncated: how many examples lost tokens, by feature.
    """

    task: str
    split: str
    inputs: Ragged
    targets: Ragged
    metadata_json: bytes
    truncated: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.inputs)

    @functools.cached_property
    def metadata(self) -> list[dict[str, Any]]:
        """The metadata of each example: its "targets" text, "idx" and what its task adds."""
        return [json.loads(line) for line in self.metadata_json.splitlines()]


def tokenized(
    task: Task,
    split: str,
    *,
    vocabulary: Vocabulary,
    lengths: Mapping[str, int] | None = None,
    data_dir: str | None = None,
    cache_dir: Path | None = None,
) -> TokenizedSplit:
    """Returns a split as token ids, from the cache if it is there.

    Args:
        task: the task.
        split: "train", "validation" or "test".
        vocabulary: the frozen model's.
        lengths: feature lengths of "inputs" and "targets" in tokens with end of sequence; longer
            examples are cut, keeping end of sequence, as SeqIO does. None: the task's own.
        data_dir: where the source is, as `Task.source` takes it.
        cache_dir: where to keep token ids; None is `default_cache_dir()`.

    Raises:
        UserError: bad source, empty split, bad lengths, a label that the vocabulary can't spell,
            or the cache cannot be written.
    """
    lengths = _checked_lengths(task.lengths if lengths is None else lengths)
    vocabulary.check_labels(task.labels or ())
    key = _key(task, split, vocabulary, lengths, data_dir)
    path = (cache_dir or default_cache_dir()) / "tokens" / f"{task.name}-{split}-{key[:16]}.npz"
    found = _read(path, task, split)
    if found is None:
        _write(path, task, split, vocabulary, lengths, data_dir)
        found = _read(path, task, split)
        assert found is not None, f"{path} was just written and cannot be read"
    return found


def _checked_lengths(lengths: Mapping[str, int]) -> dict[str, int]:
    if set(lengths) != {"inputs", "targets"} or min(lengths.values()) < 1:
        raise UserError(
            f"Feature lengths are {dict(lengths)}; expected positive numbers of tokens such as "
            "{'inputs': 512, 'targets': 8}."
        )
    return {name: int(lengths[name]) for name in sorted(lengths)}


def _key(
    task: Task,
    split: str,
    vocabulary: Vocabulary,
    lengths: Mapping[str, int],
    data_dir: str | None,
) -> str:
    header = [_FORMAT, task.name, split, vocabulary.hash, vocabulary.extra_ids, lengths]
    digest = hashlib.sha256(json.dumps(header).encode())
    count = 0
    for example in task.examples(split, data_dir):
        text = json.dumps([example.inputs, example.targets, dict(example.metadata)])
        digest.update(text.encode() + b"\n")
        count += 1
    if count == 0:
        where = f" in {data_dir}" if data_dir else ""
        raise UserError(f"Split {split!r} of task {task.name!r}{where} has no examples.")
    return digest.hexdigest()


def _write(
    path: Path,
    task: Task,
    split: str,
    vocabulary: Vocabulary,
    lengths: Mapping[str, int],
    data_dir: str | None,
) -> None:
    from prompt_tuning.data.seqio_tasks import tokenize

    rows: dict[str, list[np.ndarray]] = {"inputs": [], "targets": []}
    truncated = dict.fromkeys(rows, 0)
    metadata = []
    for example in tokenize(task, split, vocabulary, lengths, data_dir):
        for name in rows:
            rows[name].append(example[name])
            truncated[name] += int(example[f"{name}_full_length"] > lengths[name])
        metadata.append(example["metadata"])

    arrays: dict[str, Any] = {"metadata": np.frombuffer(b"\n".join(metadata), np.uint8)}
    for name in rows:
        arrays[f"{name}_values"] = np.concatenate(rows[name]).astype(np.int32)
        arrays[f"{name}_offsets"] = _offsets(rows[name])
        arrays[f"{name}_truncated"] = np.int64(truncated[name])
    with cache_file(path) as file:
        np.savez(file, **arrays)


def _offsets(rows: Iterable[np.ndarray]) -> Int[np.ndarray, "offsets"]:
    return np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)


def _read(path: Path, task: Task, split: str) -> TokenizedSplit | None:
    """Returns what the file holds, or None if there is none or it is damaged."""
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
        truncated={name: int(arrays[f"{name}_truncated"]) for name in ("inputs", "targets")},
    )
