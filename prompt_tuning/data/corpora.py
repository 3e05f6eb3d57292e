"""Plain text for pre-training: C4 or any text, as token ids on disk and batches of an objective.

    text = text_files("wiki.txt.xz", drop_markup=True)          # or c4_text()
    ids = tokenized_text(text, vocabulary, max_tokens=50_000_000)
    stream = PretrainingStream(ids, vocabulary, objective="lm_adaptation", batch_size=32, seed=0)
    batch = stream.batch(step)

Text is read once, as a stream, and its ids are stored in one memory-mapped file: a corpus may be
larger than memory, and any piece can be read directly. Hence a batch is a pure function of
(seed, step), as in `batching.py`: a resumed run sees the batches of an uninterrupted one.

Documents are concatenated without a separator and split into pieces of one length, as T5 does for
span corruption (Raffel et al., 2020, section 3.1.4); an epoch is a random permutation of the
pieces. `pretraining.py` turns a piece into inputs and targets.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer

from prompt_tuning.data.batching import Batch, pad_batch
from prompt_tuning.data.pretraining import (
    Objective,
    lm_adaptation,
    noise_and_spans,
    piece_lengths,
    span_corruption,
)
from prompt_tuning.data.sources import bad_rows_named, hash_draw
from prompt_tuning.data.tables import json_lines
from prompt_tuning.data.text_files import read_lines, uncompressed_name
from prompt_tuning.data.vocabularies import Vocabulary
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, cache_file, default_cache_dir

C4_VERSION = "2.2.0"
"""The oldest supported version of C4 in TFDS, on which T5 was trained."""

_FORMAT = 1
"""Version of the ids' file, part of its name: raise it when the contents change meaning."""

_JSON = (".json", ".jsonl", ".ndjson")
_MARKUP = re.compile(r"formula_\d|\||<br|\{\{|\[\[")
_WRITE_TOKENS = 1 << 20

# Random streams, each a function of (seed, stream, ...).
_PIECE_ORDER, _PIECE = 0, 1


@dataclass(frozen=True, kw_only=True)
class Text:
    """A stream of documents.

    Attributes:
      name: identifies this text; it changes with the files.
      documents: returns an iterator over the documents.
    """

    name: str
    documents: Callable[[], Iterator[str]]


def text_files(*paths: str | Path, drop_markup: bool = False) -> Text:
    """Returns the documents of files, in their order.

    Args:
      paths: files with one document per line (.txt), or one JSON object with "text" per line
        (.json or .jsonl, such as C4's c4-train.00000-of-01024.json.gz); see `text_files.py`.
      drop_markup: skip documents with remains of MediaWiki or HTML markup.

    Raises:
      UserError: a file is missing.
    """
    files = [as_path(path) for path in paths]
    for file in files:
        if not file.is_file():
            raise UserError(f"Text file {file} does not exist; expected .txt or .jsonl.")

    def documents() -> Iterator[str]:
        for file in files:
            for document in _file_documents(file):
                if not (drop_markup and _MARKUP.search(document)):
                    yield document

    return Text(name=json.dumps([[*map(_version, files)], drop_markup]), documents=documents)


def _version(file: FilePath) -> tuple[str, int, int]:
    """Returns a key that identifies a file and its contents."""
    if isinstance(file, Path):
        stat = file.stat()
        return str(file.resolve()), stat.st_size, stat.st_mtime_ns
    return str(file), file.stat().length, file.stat().mtime


def c4_text(split: str = "train", *, config: str = "en", data_dir: str | None = None) -> Text:
    """Returns C4 from TFDS; it must be prepared already, which takes a cluster.

    Args:
      split: "train" or "validation".
      config: TFDS's config, such as "en" or "realnewslike".
      data_dir: TFDS's data folder, which may be in a bucket; TFDS's default if None.
    """

    def documents() -> Iterator[str]:
        from prompt_tuning.data.tfds_rows import read_tfds

        _, rows = read_tfds(f"c4/{config}", C4_VERSION, data_dir, split, ("text",), prepare=False)
        return (row["text"] for row in rows)

    return Text(name=json.dumps(["c4", config, split, data_dir]), documents=documents)


def held_out(text: Text, share: float) -> tuple[Text, Text]:
    """Splits a text into a training part and a held-out part for scoring.

    A hash of each document decides, so that neither its position nor other documents matter, and
    equal documents are on the same side.

    Args:
      text: the documents.
      share: the held-out share, above 0 and below 1.

    Raises:
      UserError: the share is out of range.
    """
    if not 0 < share < 1:
        raise UserError(f"The held-out share is {share}; expected one such as 0.01.")

    def part(is_held_out: bool) -> Text:
        def documents() -> Iterator[str]:
            for document in text.documents():
                if (hash_draw(document) < share) == is_held_out:
                    yield document

        return Text(name=json.dumps([text.name, share, is_held_out]), documents=documents)

    return part(False), part(True)


def _file_documents(file: FilePath) -> Iterator[str]:
    if uncompressed_name(file).endswith(_JSON):
        for where, row in json_lines(file):
            with bad_rows_named(where, row):
                yield row["text"]
    else:
        yield from (line.strip() for line in read_lines(file) if line.strip())


def tokenized_text(
    text: Text, vocabulary: Vocabulary, *, max_tokens: int, cache_dir: Path | None = None
) -> Integer[np.ndarray, "tokens"]:
    """Returns the ids of a text's first documents, memory-mapped from a file written at first use.

    Args:
      text: the documents.
      vocabulary: the model's.
      max_tokens: maximum number of ids, of 2 or 4 bytes each.
      cache_dir: the folder of the file; `default_cache_dir()` if None.

    Raises:
      UserError: the text is empty or can't be read, or the cache can't be written.
    """
    # T5's ids fit in two bytes, mT5's don't.
    dtype = np.dtype("<u2" if len(vocabulary) <= 1 << 16 else "<i4")
    key = json.dumps([_FORMAT, text.name, vocabulary.hash, len(vocabulary), max_tokens])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.{dtype.name}"
    path = (cache_dir or default_cache_dir()) / "corpora" / name
    if not path.is_file():
        with cache_file(path) as file:
            for ids in _chunks(text, vocabulary, max_tokens):
                file.write(ids.astype(dtype).tobytes())
            if not file.tell():
                raise UserError(
                    "There is no text: every document is empty or filtered out; check CORPUS."
                )
    return np.memmap(path, dtype, mode="r")


def _chunks(
    text: Text, vocabulary: Vocabulary, max_tokens: int
) -> Iterator[Integer[np.ndarray, "tokens"]]:
    """Yields the first `max_tokens` ids of all documents, about a million at a time."""
    pending: list[int] = []
    left = max_tokens
    for document in text.documents():
        pending += vocabulary.encode(document)
        if len(pending) >= min(left, _WRITE_TOKENS):
            yield np.array(pending[:left])
            left -= min(left, len(pending))
            pending = []
            if not left:
                return
    if pending:
        yield np.array(pending)


class PretrainingStream:
    """Batches of one objective, each a pure function of the seed and the step.

    Pieces have the maximum length whose inputs and targets fit. Span corruption fills either the
    inputs or the targets exactly; LM adaptation splits each piece at a random place, and pads both
    parts.

    Args:
      ids: the text, from `tokenized_text`.
      vocabulary: the model's.
      objective: "span_corruption" or "lm_adaptation".
      batch_size: pieces per step, over all hosts.
      seed: determines, with the step, each batch.
      input_length: tokens of the inputs with EOS.
      target_length: tokens of the targets with EOS; None for the length that follows from the
        inputs'.

    Raises:
      UserError: there is no such objective, a length is too short, the text is shorter than a
        piece, or the vocabulary has too few sentinels.
    """

    def __init__(
        self,
        ids: Integer[np.ndarray, "tokens"],
        vocabulary: Vocabulary,
        *,
        objective: Objective,
        batch_size: int,
        seed: int,
        input_length: int = 512,
        target_length: int | None = None,
    ):
        self._ids = ids
        self._vocab_size = vocabulary.first_sentinel + 1
        self._objective = objective
        self._pad_id, self._eos_id = vocabulary.pad_id, vocabulary.eos_id
        self._batch_size = batch_size
        self._seed = seed
        self._input_length = input_length
        self._piece_length, self._target_length = piece_lengths(
            objective, input_length, target_length
        )
        if objective == "span_corruption":
            _, num_spans = noise_and_spans(self._piece_length)
            if num_spans > vocabulary.num_sentinels:
                raise UserError(
                    f"Inputs of {input_length} tokens need {num_spans} sentinels, but the "
                    f"vocabulary has {vocabulary.num_sentinels}; make the inputs shorter."
                )
        self._num_pieces = len(ids) // self._piece_length
        if not self._num_pieces:
            raise UserError(
                f"The text has {len(ids)} tokens; pre-training with inputs of {input_length} "
                f"tokens needs at least {self._piece_length}."
            )
        # An epoch serves many steps. Caching only saves time.
        self._order = functools.lru_cache(maxsize=2)(self._epoch_order)

    @property
    def steps_per_epoch(self) -> float:
        """The number of steps in which every piece is seen once."""
        return self._num_pieces / self._batch_size

    @property
    def shape(self) -> tuple[int, int]:
        """The (source, target) lengths of every batch."""
        return self._input_length, self._target_length

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step."""
        draws = range(step * self._batch_size, (step + 1) * self._batch_size)
        pairs = [self._example(*divmod(draw, self._num_pieces)) for draw in draws]
        inputs, targets = ([np.array(ids) for ids in part] for part in zip(*pairs, strict=True))
        return pad_batch(inputs, targets, (self._input_length,), self._target_length, self._pad_id)

    def _epoch_order(self, epoch: int) -> Integer[np.ndarray, "pieces"]:
        return np.random.default_rng((self._seed, _PIECE_ORDER, epoch)).permutation(
            self._num_pieces
        )

    def _example(self, epoch: int, position: int) -> tuple[list[int], list[int]]:
        start = int(self._order(epoch)[position]) * self._piece_length
        piece = self._ids[start : start + self._piece_length].tolist()
        rng = np.random.default_rng((self._seed, _PIECE, epoch, position))
        if self._objective == "span_corruption":
            return span_corruption(piece, rng, vocab_size=self._vocab_size, eos_id=self._eos_id)
        cut = int(rng.integers(1, len(piece)))
        return lm_adaptation(piece[:cut], piece[cut:], self._eos_id)
