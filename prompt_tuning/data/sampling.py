"""Random samples of a split, with a number of examples in total or per label.

A sample is the beginning of one random order, so with the same seed a sample of 32 includes that of
16. The order depends only on the seed and the size of the split; sampled rows stay in the order of
the split. `with_held_out` holds out training rows for choosing prompts, as in few-shot work that
keeps the validation split for scoring (Gao et al., 2021).
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
"""The split of held-out training rows."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The size of a sample: `examples` or `per_label`, or neither for all examples.

    Attributes:
      examples: number of examples in total.
      per_label: number of examples per label.
      seed: selects the examples.

    Raises:
      UserError: both numbers are given, or one is too low.
    """

    examples: int | None = None
    per_label: int | None = None
    seed: int = 0

    def __post_init__(self):
        if self.examples is not None and self.per_label is not None:
            raise UserError(
                f"Both {self.examples} examples and {self.per_label} of each label were "
                "requested; set one of them to None."
            )
        at_least(
            1, {"The number of examples": self.examples, "The number per label": self.per_label}
        )
        at_least(0, {"data.sample_seed": self.seed})

    @property
    def number(self) -> int | None:
        """The given number, if any."""
        return self.examples if self.per_label is None else self.per_label

    def take(self, split: TokenizedSplit, labels: Sequence[str] | None) -> TokenizedSplit:
        """Returns the sampled examples of a split, or all of them if no number is given.

        Args:
          split: the whole split.
          labels: the task's label words, if it has any.

        Raises:
          UserError: `per_label` is given, and the task has no labels.
        """
        if self.number is None:
            return split
        order = np.random.default_rng(self.seed).permutation(len(split))
        if self.per_label is None:
            return split.take(np.sort(order[: self.examples]))
        if not labels:
            raise UserError(
                f"The answers of {split.task} are free text, so {self.per_label} examples of each "
                "label can't be sampled; set data.max_examples instead."
            )
        targets = [row["targets"] for row in split.metadata]
        return split.take(np.sort(_first_of_each(order, targets, self.per_label)))

    def note(self, whole: TokenizedSplit, chosen: TokenizedSplit) -> str:
        """Returns a line that reports the sample's size and labels with too few examples."""
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
    """Returns the first rows of each target in the given order."""
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
    """A source that splits training rows by a hash of each."""

    source: Source
    held_out: float

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        """Yields the rows of a split, which may be `held_out`."""
        if split not in ("train", HELD_OUT):
            yield from self.source.rows(split)
            return
        for where, row in self.source.rows("train"):
            if (row_draw(row) < self.held_out) == (split == HELD_OUT):
                yield where, row


def with_held_out(task: Task, held_out: float) -> Task:
    """Returns a task with one more split, `held_out`: a share of its training rows.

    A hash of each row decides, so equal rows are on the same side. Examples of the new split are
    rendered like those of the validation split.

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
