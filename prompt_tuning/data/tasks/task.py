"""The `Task` class and the registry of tasks.

A task is a value: a source of rows, a function from a row to text, the label words, the metrics.
SeqIO tasks, the token cache, training and evaluation all use that value. `register_task` makes it
available to every command by name; `catalog.py` lists all tasks.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prompt_tuning.data.preprocessors import UNLABELED, Row
from prompt_tuning.data.sources import Source, bad_rows_named
from prompt_tuning.errors import UserError, listed


@dataclass(frozen=True, kw_only=True)
class Example:
    """One example as text.

    Attributes:
      inputs: the encoder's input.
      targets: the text that the decoder should output; "<unk>" if withheld.
      metadata: additional data for the metrics, of JSON types.
      withheld: whether the label is withheld. If None, it is if the target is T5's "<unk>", which
        isn't a label of the official tasks.
      shortened: whether the inputs were shortened to fit (`shortening.py`).
    """

    inputs: str
    targets: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    withheld: bool | None = None
    shortened: bool = False

    @property
    def has_label(self) -> bool:
        """Whether it has a label to train on and to score."""
        return self.targets != UNLABELED if self.withheld is None else not self.withheld

    @property
    def scoring_metadata(self) -> dict[str, Any]:
        """The metadata, with a mark if the label itself is "<unk>"; see `is_withheld`."""
        marked = self.has_label and self.targets == UNLABELED
        return {**self.metadata, **({"withheld": False} if marked else {})}


def is_withheld(metadata: Mapping[str, Any]) -> bool:
    """Returns whether an example's label is withheld, given its metadata with "targets"."""
    return metadata.get("withheld", metadata["targets"] == UNLABELED)


_MOST_COLUMNS = 20

Metric = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], dict[str, float]]
"""Maps the metadata of examples (with their "targets") and predicted texts to named scores."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task: rows, their text, and how answers are scored.

    Attributes:
      name: its name in commands.
      source: maps the user's data folder (the task's default if None) to the source of rows.
      render: maps a row to examples; its second argument is whether they are for training,
        for tasks that train on other examples than they score. It raises KeyError for a
        missing field and ValueError for a bad one.
      text: maps a row, which may lack an answer and an index, to the encoder's input; raises as
        `render`. If None, `render` is used, with "<unk>" for a missing "label" and None for a
        missing "idx".
      metrics: each returns named scores in [0, 1] or [-1, 1]; their mean is the task's score.
      templates: the input and the target template, if the task uses them.
      labels: the label words, for rank classification and class-label initialization; None
        for free text.
      splits: the source's splits, with SeqIO's names.
      lengths: the default feature lengths, in tokens with end of sequence (the paper's).
      shorten: the field of a row to shorten if inputs are too long; None truncates the inputs.
    """

    name: str
    source: Callable[[str | None], Source]
    render: Callable[[Row, bool], Iterable[Example]]
    metrics: tuple[Metric, ...]
    text: Callable[[Row], str] | None = None
    templates: tuple[str, str] | None = None
    labels: tuple[str, ...] | None = None
    splits: tuple[str, ...] = ("train", "validation", "test")
    lengths: Mapping[str, int] = field(default_factory=lambda: {"inputs": 512, "targets": 8})
    shorten: str | None = None

    def examples(self, split: str, data_dir: str | None = None) -> Iterator[Example]:
        """Yields the examples of a split, in the order of the source.

        Raises:
          UserError: an unknown split, a missing or malformed file, a bad row or a label that
            is not one of the task's, with file and line.
        """
        if split not in self.splits:
            raise UserError(
                f"Task {self.name!r} has no split {split!r}; it has {', '.join(self.splits)}."
            )
        for where, row in self.source(data_dir).rows(split):
            with bad_rows_named(where, row):
                examples = list(self.render(row, split == "train"))
                for example in examples:
                    self._check_target(example, split)
            yield from examples

    def inputs_of(self, row: Row) -> str:
        """Returns the encoder's input for a row to be answered.

        Raises:
          KeyError: the row lacks a field.
          ValueError: a field is bad.
        """
        if self.text is not None:
            return self.text(row)
        unlabeled = {"idx": None, "label": UNLABELED}
        return next(iter(self.render({**unlabeled, **row}, False))).inputs

    @functools.cached_property
    def row_form(self) -> Mapping[str, str | list[str]]:
        """A row with the fields that the text uses; empty if they can't be determined.

        Values are "...", or ["..."] if a list is expected. The fields are found by rendering rows
        that lack them.
        """
        row: dict[str, str | list[str]] = {}
        last = ""
        for _ in range(_MOST_COLUMNS):
            try:
                self.inputs_of(row)
            except KeyError as error:
                last = str(error.args[0])
                row[last] = "..."
            except Exception:  # the last field isn't text: a list of candidates, a number
                if row.get(last) != "...":
                    return {}
                row[last] = ["..."]
            else:
                return row
        return {}

    @property
    def columns(self) -> tuple[str, ...]:
        """The fields that the text uses; empty if they can't be determined."""
        return tuple(self.row_form)

    def _check_target(self, example: Example, split: str) -> None:
        target = example.targets
        if not example.has_label:
            if split == "train":
                raise ValueError("no label; a training example needs one")
        elif self.labels is not None and target not in self.labels:
            raise ValueError(f"label {target!r} is not one of {listed(self.labels)}")

    def evaluate(
        self, examples: Sequence[Mapping[str, Any]], predictions: Sequence[str]
    ) -> dict[str, float]:
        """Returns the task's metrics.

        Args:
          examples: the metadata of the examples, as in `TokenizedSplit.metadata`.
          predictions: the predicted text for each.

        Raises:
          UserError: there are no examples, or their labels are withheld.
        """
        if len(examples) != len(predictions):
            raise ValueError(f"{len(examples)} examples but {len(predictions)} predictions")
        if not examples:
            raise UserError(f"Task {self.name!r} was given no examples to score.")
        if any(map(is_withheld, examples)):
            raise UserError(
                f"The labels of task {self.name!r} are withheld in this split, so it cannot be "
                "scored; evaluate on the validation split."
            )
        scores: dict[str, float] = {}
        for metric in self.metrics:
            scores |= metric(examples, predictions)
        return scores

    def score(self, metrics: Mapping[str, float]) -> float:
        """Returns the task's score: the mean of its metrics, as in the paper."""
        return sum(metrics.values()) / len(metrics)


TASKS: dict[str, Task] = {}
"""The registered tasks by name; `catalog.py` adds the shipped ones."""


def register_task(task: Task) -> Task:
    """Makes a task available by name, to every command and to SeqIO.

    Raises:
      UserError: the name is taken by another task, or has characters that SeqIO doesn't allow.
    """
    if not re.fullmatch(r"[\w.:#]+", task.name):
        raise UserError(
            f"The task name {task.name!r} may contain only letters, digits, '_' and '.'."
        )
    if TASKS.get(task.name, task) is not task:
        raise UserError(f"There is already a task {task.name!r}; choose another name.")
    TASKS[task.name] = task
    return task
