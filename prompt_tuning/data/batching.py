"""Length-bucketed batches in an order that is a pure function of (seed, step).

There is no iterator state to save: `BatchStream.batch(step)` computes which examples belong to a
step, so a resumed run, and every host of many, sees the batches of an uninterrupted one.

Examples come from one random permutation of a split after another. Those of a *window* of
consecutive steps are sorted by length and split into batches, whose order is shuffled. A batch is
padded to the smallest of a few source lengths that fits; the lengths are chosen to minimize padding
on this data. So there are few shapes to compile and little padding to compute. Several splits are
mixed by their rates (`mixtures.py`). Batches with a constant number of tokens, not of examples, are
in `token_batches.py`.

A batch is a dict of NumPy arrays with the names of SeqIO's encoder-decoder features. In mixtures,
"task" is the index of each example's split.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int

from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.data.vocabularies import PAD_ID
from prompt_tuning.errors import at_least

Batch = dict[str, np.ndarray]
"""Token ids [batch, source] and [batch, target] i32, loss weights [batch, target] f32; for mixed
splits also the index of each example's split, [batch] i32."""

LENGTH_MULTIPLE = 8
"""Padded source lengths are multiples of this, which suits hardware."""

MAX_WINDOW = 16
"""Steps whose examples are sorted together: more steps need less padding but are less random."""

# Random streams, each a function of (seed, stream, ...).
_EXAMPLE_ORDER, _BATCH_ORDER = 0, 1


def bucket_lengths(
    lengths: Int[np.ndarray, "examples"], num_buckets: int, multiple: int = LENGTH_MULTIPLE
) -> tuple[int, ...]:
    """Returns the padded lengths, at most `num_buckets`, with the least padding on this data.

    Exact, by dynamic programming over the distinct lengths. The last fits the longest example.

    Args:
      lengths: tokens of each example.
      num_buckets: the maximum number of lengths, and so of compiled shapes.
      multiple: padded lengths are multiples of it.
    """
    rounded = -(-np.asarray(lengths) // multiple) * multiple
    values, counts = np.unique(rounded, return_counts=True)
    examples = np.concatenate([[0], np.cumsum(counts)])
    # cost[j]: minimum padded tokens of the j shortest distinct lengths in the buckets so far.
    cost = np.concatenate([[0.0], np.full(len(values), np.inf)])
    last_start = []
    for _ in range(min(num_buckets, len(values))):
        # totals[i, j]: with one more bucket, of the distinct lengths i to j.
        totals = cost[:-1, None] + (examples[None, 1:] - examples[:-1, None]) * values[None, :]
        totals[np.tril_indices(len(values), -1)] = np.inf
        last_start.append(np.argmin(totals, axis=0))
        cost = np.concatenate([[np.inf], np.min(totals, axis=0)])
    boundaries = []
    end = len(values)
    for starts in reversed(last_start):
        boundaries.append(int(values[end - 1]))
        end = starts[end - 1]
    return tuple(reversed(boundaries))


def window_ranges(
    rates: Float[np.ndarray, "parts"], window: int, size: int
) -> list[tuple[int, int]]:
    """Returns the range of each part's samples within a window of `size` samples of all parts.

    Each part's samples grow in proportion to its rate, and the most frequent part gets the rest, so
    shares are exact in the long run and within one sample in every window. The most frequent part
    needs at least as many samples per window as there are other parts.
    """
    ends = np.floor(np.outer([window, window + 1], size * rates)).astype(np.int64)
    largest = int(np.argmax(rates))
    ends[:, largest] = 0
    ends[:, largest] = np.array([window, window + 1]) * size - ends.sum(axis=1)
    return [(int(start), int(stop)) for start, stop in ends.T]


def window_order(seed: int, window: int, size: int) -> Int[np.ndarray, "size"]:
    """Returns a permutation: the order of a window's batches."""
    return _batch_order(seed, window).permutation(size)


def _batch_order(seed: int, window: int) -> np.random.Generator:
    return np.random.default_rng((seed, _BATCH_ORDER, window))


class BatchStream:
    """Training batches of one split, or of several mixed.

    Args:
      splits: the splits to sample from.
      batch_size: examples per step, over all hosts.
      seed: determines, with the step, each batch.
      rates: the share of each split; None for equal shares.
      num_lengths: the number of source lengths to which batches are padded.
      max_window: the maximum number of steps whose examples are sorted together.
    """

    def __init__(
        self,
        splits: TokenizedSplit | Sequence[TokenizedSplit],
        *,
        batch_size: int,
        seed: int,
        rates: Sequence[float] | np.ndarray | None = None,
        num_lengths: int = 4,
        max_window: int = MAX_WINDOW,
    ):
        self._splits = (splits,) if isinstance(splits, TokenizedSplit) else tuple(splits)
        at_least(1, {"batch_size": batch_size, "num_lengths": num_lengths})
        at_least(0, {"seed": seed})
        self._batch_size = batch_size
        self._seed = seed
        shares = np.ones(len(self._splits)) if rates is None else np.asarray(rates, np.float64)
        self._rates = shares / shares.sum()
        self._lengths = [split.inputs.lengths for split in self._splits]
        self._source_lengths = bucket_lengths(np.concatenate(self._lengths), num_lengths)
        self._target_length = max(int(split.targets.lengths.max()) for split in self._splits)
        # In a window of more than half an epoch, many examples would be next to their own copy.
        half_epoch = sum(map(len, self._splits)) // (2 * batch_size)
        # And the most frequent split gets the rest of a window, after the others are rounded up.
        others = len(self._splits) - 1
        least = math.ceil(others / (batch_size * self._rates.max()))
        self._window = max(1, least, min(max_window, half_epoch))
        # A window serves its consecutive steps. Caching only saves time.
        self._window_rows = functools.lru_cache(maxsize=2)(self._draw_window)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The (source, target) lengths of batches."""
        return tuple((length, self._target_length) for length in self._source_lengths)

    def examples(self, step: int) -> Int[np.ndarray, "batch 2"]:
        """Returns the (split, example) indices of the step's rows."""
        return self._window_rows(step // self._window)[step % self._window]

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step."""
        return mixed_batch(
            self._splits, self.examples(step), self._source_lengths, self._target_length
        )

    def _draw_window(self, window: int) -> Int[np.ndarray, "window batch 2"]:
        size = self._window * self._batch_size
        drawn = [
            np.stack([np.full(stop - start, split), self._draws(split, start, stop)], axis=1)
            for split, (start, stop) in enumerate(window_ranges(self._rates, window, size))
        ]
        rows = np.concatenate(drawn)
        lengths = np.array([self._lengths[split][row] for split, row in rows])
        # Shuffled first: otherwise examples of equal length would be in the order of the splits.
        rng = _batch_order(self._seed, window)
        shuffled = rng.permutation(size)
        by_length = shuffled[np.argsort(lengths[shuffled], kind="stable")]
        batches = rows[by_length].reshape(self._window, self._batch_size, 2)
        return batches[rng.permutation(self._window)]

    def _draws(self, split: int, start: int, stop: int) -> Int[np.ndarray, "draws"]:
        """Returns samples `start` to `stop` of a split's permutations, one after another."""
        size = len(self._splits[split])
        draws = np.arange(start, stop)
        rows = np.empty(len(draws), np.int64)
        for epoch in range(start // size, -(-stop // size)):
            rng = np.random.default_rng((self._seed, _EXAMPLE_ORDER, split, epoch))
            inside = draws // size == epoch
            rows[inside] = rng.permutation(size)[draws[inside] % size]
        return rows


def eval_batches(
    split: TokenizedSplit, batch_size: int, num_lengths: int = 4
) -> Iterator[tuple[Batch, Int[np.ndarray, "rows"]]]:
    """Yields batches over every example once, shortest first, with the examples' indices.

    The last batch is padded by repeating its first row with loss weights of zero. The indices are
    only those of the real rows, which come first.
    """
    at_least(1, {"batch_size": batch_size})
    lengths = split.inputs.lengths
    source_lengths = bucket_lengths(lengths, num_lengths)
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield padded_eval_batch(split, rows, batch_size, source_lengths), rows


def padded_eval_batch(
    split: TokenizedSplit, rows: Int[np.ndarray, "rows"], size: int, source_lengths: Sequence[int]
) -> Batch:
    """Returns a batch of these rows, padded to `size` by the first with loss weights of zero."""
    padded = np.concatenate([rows, np.full(size - len(rows), rows[0])])
    pairs = np.stack([np.zeros_like(padded), padded], axis=1)
    batch = mixed_batch([split], pairs, source_lengths, int(split.targets.lengths.max()))
    batch["decoder_loss_weights"][len(rows) :] = 0.0
    return batch


def mixed_batch(
    splits: Sequence[TokenizedSplit],
    rows: Int[np.ndarray, "batch 2"],
    source_lengths: Sequence[int],
    target_length: int,
) -> Batch:
    """Returns the batch of the (split, example) indices `rows`, padded as by `pad_batch`."""
    batch = pad_batch(
        [splits[split].inputs[row] for split, row in rows],
        [splits[split].targets[row] for split, row in rows],
        source_lengths,
        target_length,
        splits[0].pad_id,
    )
    return batch if len(splits) == 1 else of_task(batch, rows[:, 0])


def of_task(batch: Batch, task: int | Int[np.ndarray, "batch"]) -> Batch:
    """Returns a batch with the task index of its examples, one for all or one for each."""
    rows = len(batch["encoder_input_tokens"])
    return {**batch, "task": np.broadcast_to(np.asarray(task, np.int32), (rows,))}


def pad_batch(
    inputs: Sequence[np.ndarray],
    targets: Sequence[np.ndarray],
    source_lengths: Sequence[int],
    target_length: int,
    pad_id: int = PAD_ID,
) -> Batch:
    """Returns examples as a batch, with inputs padded to the first length that fits all."""
    longest = max(map(len, inputs))
    source_length = next(length for length in source_lengths if length >= longest)
    encoder_inputs = np.full((len(inputs), source_length), pad_id, np.int32)
    decoder_targets = np.full((len(targets), target_length), pad_id, np.int32)
    for row, (source, target) in enumerate(zip(inputs, targets, strict=True)):
        encoder_inputs[row, : len(source)] = source
        decoder_targets[row, : len(target)] = target
    decoder_inputs = np.roll(decoder_targets, 1, axis=1)
    decoder_inputs[:, 0] = pad_id  # T5's start token; a model with another one replaces it
    return {
        "encoder_input_tokens": encoder_inputs,
        "decoder_input_tokens": decoder_inputs,
        "decoder_target_tokens": decoder_targets,
        "decoder_loss_weights": (decoder_targets != pad_id).astype(np.float32),
    }
