"""A few examples of a split, chosen by a seed: so many at random, or so many of each label.

A sample is the beginning of one random order, so with the same seed 16 examples are among 32. The
order depends on the seed and the size of the split alone; the chosen rows stay in the order of the
split. `with_held_out` sets training rows aside to choose prompts on, as few-shot work does that
leaves the validation split for scoring (Gao et al., 2021).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from prompt_tuning.data.sources import JsonRow, Source, row_draw
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import UserError, at_least

HELD_OUT = "held_out"
"""The split of training rows that are set aside."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How many examples to take; at most one of the two is given.

    Attributes:
      examples: how many at random.
      per_label: how many of each label.
      seed: which ones.

    Raises:
      UserError: both are given, or a number is too low.
    """

    examples: int | None = None
    per_label: int | None = None
    seed: int = 0

    def __post_init__(self):
        if self.examples is not None and self.per_label is not None:
            raise UserError(
                f"Both {self.examples} examples and {self.per_label} of each label are asked for; "
                "set one of them to None."
            )
        at_least(1, {"The number of examples": self.examples, "That per label": self.per_label})
        at_least(0, {"data.sample_seed": self.seed})

    @property
    def number(self) -> int | None:
        """The number that is given."""
        return self.examples if self.per_label is None else self.per_label

    def take(self, split: TokenizedSplit, labels: Sequence[str] | None) -> TokenizedSplit:
        """Returns the chosen examples of a split, all of them if no number is given.

        Args:
          split: the whole split.
          labels: the task's label words, if it has any.

        Raises:
          UserError: so many of each label are asked for, and the task has none.
        """
        if self.number is None:
            return split
        order = np.random.default_rng(self.seed).permutation(len(split))
        if self.per_label is None:
            return split.take(np.sort(order[: self.examples]))
        if not labels:
            raise UserError(
                f"The answers of {split.task} are free text, so there aren't {self.per_label} "
                "examples of each label; set data.max_examples instead."
            )
        targets = [row["targets"] for row in split.metadata]
        return split.take(np.sort(_first_of_each(order, targets, self.per_label)))

    def note(self, whole: TokenizedSplit, chosen: TokenizedSplit) -> str:
        """Returns a line that reports what was chosen and which labels have fewer examples."""
        line = (
            f"{whole.task} {whole.split}: {len(chosen)} of {len(whole)} examples are used "
            f"({'at random' if self.per_label is None else f'{self.per_label} of each label'}, "
            f"data.sample_seed {self.seed})"
        )
        if self.per_label is None:
            return f"{line}."
        found = Counter(row["targets"] for row in chosen.metadata)
        few = {label: count for label, count in found.items() if count < self.per_label}
        listed = ", ".join(f"{label!r} {count}" for label, count in sorted(few.items())[:10])
        return f"{line}; there are fewer of {listed}." if few else f"{line}."


EVERYTHING = Sample()
"""All examples of a split."""


def _first_of_each(
    order: Int[np.ndarray, "rows"], targets: Sequence[str], number: int
) -> Int[np.ndarray, "chosen"]:
    """Returns the first rows of each target in this order."""
    taken: Counter[str] = Counter()
    chosen = []
    for row in order:
        target = targets[int(row)]
        if taken[target] < number:
            taken[target] += 1
            chosen.append(row)
    return np.array(chosen)


@dataclass(frozen=True)
class _HeldOut:
    """A source whose training rows are parted by a hash of each."""

    source: Source
    held_out: float

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        """Yields the rows of a split, `held_out` among them."""
        if split not in ("train", HELD_OUT):
            yield from self.source.rows(split)
            return
        for where, row in self.source.rows("train"):
            if (row_draw(row) < self.held_out) == (split == HELD_OUT):
                yield where, row


def with_held_out(task: Task, held_out: float) -> Task:
    """Returns a task with one more split, `held_out`: a share of its training rows.

    A hash of each row decides, so equal rows are on one side. Examples of that split are made as
    those of the validation split are.

    Raises:
      UserError: the share isn't between 0 and 1, or the task has no training split.
    """
    if not 0 < held_out < 1:
        raise UserError(f"data.held_out is {held_out}; expected a share such as 0.1.")
    if "train" not in task.splits:
        raise UserError(
            f"Task {task.name!r} has no training rows to hold out; unset data.held_out."
        )
    return replace(
        task,
        source=lambda data_dir: _HeldOut(task.source(data_dir), held_out),
        splits=(*task.splits, HELD_OUT),
    )
