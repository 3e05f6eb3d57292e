"""Batches of about the same number of tokens: many short examples, or few long ones.

Each padded length has its own number of rows, and a batch contains examples of one length bucket
only. So no example is padded beyond its bucket, and steps of short and of long examples cost the
same. A step's bucket is a pure function of (seed, step), as in `batching.py`: buckets take turns in
proportion to their batches per epoch, so that every example occurs equally often in the long run.

A step's loss is the mean over its target tokens, so an example weighs less in a batch with more
rows. For a constant number of examples per step, use `batching.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int

from prompt_tuning.data.batching import (
    Batch,
    BatchStream,
    bucket_lengths,
    mixed_batch,
    padded_eval_batch,
    window_order,
    window_ranges,
)
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import at_least

LENGTH_MULTIPLE = 4
"""Padded source lengths are multiples of this; so is the paper's prompt length of 100."""

SCHEDULE = 64
"""Minimum number of steps whose buckets are chosen together, each bucket with its share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenBudget:
    """The size of a batch in tokens.

    Attributes:
      tokens: maximum number of positions per batch (except for batches of `row_multiple` rows).
      extra: positions of a row in addition to its input: the prompt's length.
      row_multiple: rows are a multiple of this: the number of devices times that of microbatches.
      num_lengths: number of source lengths, and so of compiled shapes.
    """

    tokens: int
    extra: int = 0
    row_multiple: int = 1
    num_lengths: int = 4

    def __post_init__(self) -> None:
        at_least(1, {"BATCH_TOKENS": self.tokens, "data.num_lengths": self.num_lengths})
        at_least(0, {"data.extra_tokens": self.extra})

    def rows(self, length: int) -> int:
        """Returns the number of rows of a batch with inputs padded to `length`."""
        rows = self.tokens // (length + self.extra)
        return max(rows // self.row_multiple, 1) * self.row_multiple


class TokenBatchStream:
    """Training batches of one split, or of several mixed; an alternative to `BatchStream`.

    Args:
      splits: the splits to sample from.
      budget: tokens per step, over all hosts.
      seed: determines, with the step, each batch.
      rates: the share of each split among the examples; None for equal shares.
    """

    def __init__(
        self,
        splits: TokenizedSplit | Sequence[TokenizedSplit],
        *,
        budget: TokenBudget,
        seed: int,
        rates: Sequence[float] | np.ndarray | None = None,
    ):
        splits = (splits,) if isinstance(splits, TokenizedSplit) else tuple(splits)
        at_least(0, {"seed": seed})
        shares = np.ones(len(splits)) if rates is None else np.asarray(rates, np.float64)
        shares = shares / shares.sum()
        lengths = [split.inputs.lengths for split in splits]
        found = bucket_lengths(np.concatenate(lengths), budget.num_lengths, LENGTH_MULTIPLE)
        # The bucket of each example, by split.
        buckets = [np.searchsorted(found, of_split) for of_split in lengths]

        self._splits, self._seed = splits, seed
        self._source_lengths = found
        self._target_length = max(int(split.targets.lengths.max()) for split in splits)
        # For each bucket: its splits with its rows of each, and the stream of its batches.
        self._members: list[list[tuple[int, np.ndarray]]] = []
        self._streams: list[BatchStream] = []
        batches = []
        for bucket, length in enumerate(found):
            members = [
                (split, np.flatnonzero(of_split == bucket))
                for split, of_split in enumerate(buckets)
                if np.any(of_split == bucket)
            ]
            weights = [shares[split] * len(rows) / len(splits[split]) for split, rows in members]
            rows_a_batch = budget.rows(length)
            self._members.append(members)
            self._streams.append(
                BatchStream(
                    [_tokens_of(splits[split], rows) for split, rows in members],
                    batch_size=rows_a_batch,
                    # A separate random stream, so that buckets aren't correlated.
                    seed=int(np.random.SeedSequence((seed, bucket)).generate_state(1)[0]),
                    rates=weights,
                    num_lengths=1,
                    # Within a bucket, sorting has no benefit.
                    max_window=1,
                )
            )
            batches.append(sum(weights) / rows_a_batch)
        self._rates = np.array(batches) / sum(batches)
        others = len(found) - 1
        self._window = max(SCHEDULE, math.ceil(others / self._rates.max()))
        self._schedule = functools.lru_cache(maxsize=2)(self._make_schedule)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """The (source, target) lengths of batches."""
        return tuple((length, self._target_length) for length in self._source_lengths)

    def examples(self, step: int) -> Int[np.ndarray, "batch 2"]:
        """Returns the (split, example) indices of the step's rows."""
        bucket, turn = self._turn(step)
        members = self._members[bucket]
        found = self._streams[bucket].examples(turn)
        return np.array([(members[split][0], members[split][1][row]) for split, row in found])

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step."""
        return mixed_batch(
            self._splits, self.examples(step), self._source_lengths, self._target_length
        )

    def _turn(self, step: int) -> tuple[int, int]:
        """Returns the bucket of a step, and the number of its earlier batches."""
        bucket, turn = self._schedule(step // self._window)[step % self._window]
        return int(bucket), int(turn)

    def _make_schedule(self, window: int) -> Int[np.ndarray, "steps 2"]:
        turns = [
            (bucket, turn)
            for bucket, (start, stop) in enumerate(window_ranges(self._rates, window, self._window))
            for turn in range(start, stop)
        ]
        return np.array(turns)[window_order(self._seed, window, self._window)]


def token_eval_batches(
    split: TokenizedSplit, budget: TokenBudget
) -> Iterator[tuple[Batch, Int[np.ndarray, "rows"]]]:
    """Yields batches over every example once, shortest first, with the examples' indices.

    A bucket's number of rows is chosen to leave the fewest examples over, which go into the next
    bucket. So padding rows are rare; they repeat their batch's first row with loss weights of zero.
    """
    lengths = split.inputs.lengths
    found = bucket_lengths(lengths, budget.num_lengths, LENGTH_MULTIPLE)
    order = np.argsort(lengths, kind="stable")
    stops = np.searchsorted(lengths[order], found, side="right")
    start = 0
    for length, stop in zip(found, stops, strict=True):
        last = bool(stop == len(order))
        left = int(stop) - start
        rows_a_batch = _even_rows(left, budget.rows(length), budget.row_multiple, last)
        while start < stop and (last or stop - start >= rows_a_batch > 0):
            rows = order[start : min(start + rows_a_batch, stop)]
            start += len(rows)
            yield padded_eval_batch(split, rows, rows_a_batch, [length]), rows


def _even_rows(examples: int, most: int, multiple: int, last: bool) -> int:
    """Returns the number of rows, at least half of `most`, that leaves the fewest examples over.

    In the last bucket, the number with the fewest padding rows. 0 if all are left over.
    """
    if examples <= most:
        return (-(-examples // multiple) if last else examples // multiple) * multiple
    # Ties go to the first, which has the most rows.
    candidates = range(most, max(most // 2, 1) - 1, -multiple)
    return min(candidates, key=lambda rows: (-examples if last else examples) % rows)


def _tokens_of(split: TokenizedSplit, rows: Int[np.ndarray, "rows"]) -> TokenizedSplit:
    """Returns the token ids of these rows, without metadata and texts."""
    return TokenizedSplit(
        task=split.task,
        split=split.split,
        inputs=split.inputs.take(rows),
        targets=split.targets.take(rows),
        metadata_json=b"",
        pad_id=split.pad_id,
    )
