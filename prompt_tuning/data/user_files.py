"""A task from a user's tables and two templates, without any Python.

    UserFiles(files={"train": as_path("reviews.csv")}, inputs=..., targets=...)   # the rows
    user_task(source, ...)                                                        # the task

`tables.py` reads the files. Without a validation file, a share of the training rows is held out, by
a hash of each row, so that the order of the rows doesn't matter and equal rows are on the same
side. `templates.py` formats the text.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompt_tuning.data import metrics
from prompt_tuning.data.preprocessors import UNLABELED, Row
from prompt_tuning.data.sources import bad_rows_named, row_draw
from prompt_tuning.data.tables import JsonRow, check_format, read_table, table_format
from prompt_tuning.data.tasks.task import Example, Metric, Task
from prompt_tuning.data.templates import Template
from prompt_tuning.data.text_files import uncompressed_name
from prompt_tuning.errors import UserError, did_you_mean, listed
from prompt_tuning.files import FilePath

MAX_LABELS = 20
"""Without `labels`, up to this many different targets are used as labels."""

MULTI_LABEL = "multi_label"
_REGRESSION = ("pearson", "spearman")


@dataclass(frozen=True, kw_only=True)
class UserFiles:
    """The rows of a user's files.

    Attributes:
      files: one or more paths for `read_table` for each split; "train" is required.
      inputs: template of the encoder's input.
      targets: template of the targets; its columns may be missing in the test split.
      held_out: the share of training rows held out as the validation split if that has no file.
      label_words: the word for each value in the target template's columns, such as
        {0: "negative", 1: "positive"}; None leaves the values unchanged.

    Raises:
      UserError: a file's format is unknown, or the share isn't between 0 and 1.
    """

    files: Mapping[str, FilePath | Sequence[FilePath]]
    inputs: Template
    targets: Template
    held_out: float = 0.1
    label_words: Mapping[Any, str] | None = None

    def __post_init__(self):
        for split in self.files:
            for path in self.paths(split):
                check_format(path)
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}; expected a share such as 0.1.")

    @property
    def splits(self) -> tuple[str, ...]:
        """The available splits."""
        return ("train", "validation", *(("test",) if "test" in self.files else ()))

    def paths(self, split: str) -> tuple[FilePath, ...]:
        """Returns the files of a split."""
        files: Any = self.files[split]
        return tuple(files) if isinstance(files, list | tuple) else (files,)

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        """Yields each row of a split with the file and line at which it starts.

        Raises:
          UserError: a file is missing, empty or damaged, a row is malformed, a column of a
            template is missing, or no row is held out.
        """
        if split == "test" or "validation" in self.files:
            yield from self.file_rows(split)
            return
        found = False
        for where, row in self.file_rows("train"):
            if (row_draw(row) < self.held_out) == (split == "validation"):
                found = True
                yield where, row
        if not found:
            raise UserError(
                f"{self.paths('train')[0]} has too few different rows to hold out "
                f"{self.held_out:g} of them for validation: no row is left for {split}; give "
                "VALIDATION_FILE."
            )

    def file_rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        """Yields every row of a split's files, including held-out ones; raises as `rows`."""
        for path in self.paths(split):
            count = 0
            for where, row in read_table(path):
                with bad_rows_named(where, row):
                    row = self._in_words(row)
                self._check(where, row, withheld=split == "test")
                count += 1
                yield where, row
            if not count:
                has_header = table_format(path) in (".csv", ".tsv")
                header = " below a line that names the columns" if has_header else ""
                raise UserError(f"{path} is empty; expected rows{header}.")

    def notes(self) -> list[str]:
        """Returns a line for each possible mistake in the training files and the templates."""
        notes = []
        if leaks := set(self.inputs.columns) & set(self.targets.columns):
            notes.append(
                f"The input template {self.inputs.text!r} contains the column {min(leaks)!r}, "
                "which is the answer in the target template."
            )
        empty: Counter[str] = Counter()
        count = 0
        for _, row in self.file_rows("train"):
            count += 1
            empty.update(set(empty_columns(row, self.inputs)))
        notes += [
            f"The column {column!r} is empty in {number:,} of {count:,} training rows."
            for column, number in empty.items()
        ]
        return notes

    def _in_words(self, row: JsonRow) -> JsonRow:
        """Returns the row with its answer's values as text: by `label_words`, lists with commas."""
        words = {}
        for column in row.keys() & set(self.targets.columns):
            value = row[column]
            values = value if isinstance(value, list) else [value]
            if self.label_words is not None and not _is_empty(value):
                values = [self._word(column, one) for one in values]
            words[column] = ", ".join(map(str, values)) if isinstance(value, list) else values[0]
        return {**row, **words}

    def _word(self, column: str, value: Any) -> str:
        words = self.label_words or {}
        by_text = {str(known): word for known, word in words.items()}
        # Numbers of different types are equal as keys; a number and its text aren't.
        found = words.get(value, by_text.get(str(value).strip()))
        if found is None:
            raise ValueError(
                f"column {column!r} is {value!r}, for which label_words has no word; it has "
                f"{', '.join(map(repr, words))}"
            )
        return found

    def _check(self, where: str, row: JsonRow, *, withheld: bool) -> None:
        for template in (self.inputs, *(() if withheld else (self.targets,))):
            for column in template.columns:
                if column not in row:
                    raise UserError(
                        f"{where}: no column {column!r}, which the {template.name} uses; found "
                        f"{listed([repr(name) for name in row])}.{did_you_mean(column, row)}"
                    )
            with bad_rows_named(where, row):
                if not template.render(row):
                    raise ValueError(f"the {template.name} {template.text!r} produces no text")
        with bad_rows_named(where, row):
            self._check_answer(row, withheld=withheld)

    def _check_answer(self, row: JsonRow, *, withheld: bool) -> None:
        """Rejects a partial answer, and outside the test split also a missing one."""
        empty = empty_columns(row, self.targets)
        if empty and not (withheld and set(empty) == set(self.targets.columns)):
            raise ValueError(
                f"column {empty[0]!r}, which the target template names, is empty; fill it in"
                + (", or leave every column of the answer empty to withhold it" * withheld)
            )


def empty_columns(row: Row, template: Template) -> list[str]:
    """Returns the columns of a template that are missing or empty in a row."""
    return [column for column in template.columns if _is_empty(row.get(column))]


def _is_empty(value: Any) -> bool:
    return value is None or not str(value).strip()


def user_task(
    source: UserFiles,
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    metric: str | Sequence[str] | None = None,
) -> Task:
    """Returns the task of a user's files.

    Args:
      source: the files and the templates.
      name: the task's name; by default that of the first training file.
      labels: the label words; empty for free text. None uses the different targets of the
        training files if they are few (`MAX_LABELS`) and the metric is for labels. With labels,
        no file is read, so that a run answers without its training files.
      metric: one or several of "accuracy", "macro_f1", "matthews" (two labels), "rouge",
        "multi_label" (sets of labels, separated by commas), "pearson" and "spearman" (numbers).
        The default is "accuracy" for labels, "rouge" for free text.

    Raises:
      UserError: the training files can't be read, or a metric is unknown or doesn't match the
        labels.
    """
    asked = (metric,) if isinstance(metric, str) else tuple(metric or ())
    found: tuple[str, ...] = ()
    if labels is not None:
        found = tuple(labels)
    elif not {MULTI_LABEL, *_REGRESSION} & set(asked):
        found = _find_labels(source)
    numbers = bool(set(_REGRESSION) & set(asked))
    return Task(
        name=task_name(name, source.paths("train")[0]),
        source=lambda data_dir: source,
        render=lambda row, training: _render(row, source, numbers),
        text=source.inputs.render,
        templates=(source.inputs.text, source.targets.text),
        metrics=_metrics(asked or ("accuracy" if found else "rouge",), found),
        labels=found or None,
        splits=source.splits,
        lengths={"inputs": 512, "targets": 32},
    )


def task_name(name: str | None, train_file: FilePath) -> str:
    """Returns the name of a user's task, by default that of its first training file."""
    file = uncompressed_name(train_file)
    # Only characters that SeqIO allows in a name.
    return re.sub(r"[^\w.:#]+", "_", name or file.rpartition(".")[0] or file)


def _metrics(names: Sequence[str], labels: tuple[str, ...]) -> tuple[Metric, ...]:
    known: dict[str, Metric] = {"accuracy": metrics.accuracy, "rouge": metrics.rouge}
    if labels:
        known["macro_f1"] = functools.partial(metrics.macro_f1, labels=labels)
    if len(labels) == 2:
        known["matthews"] = functools.partial(metrics.matthews_correlation, labels=labels)
    known[MULTI_LABEL] = metrics.multi_label
    known |= {"pearson": metrics.pearson, "spearman": metrics.spearman}
    for name in names:
        if name not in known:
            kind = f"{len(labels)} labels" if labels else "free text"
            raise UserError(
                f"Unknown metric {name!r} for {kind}; expected one of "
                f"{', '.join(known)}.{did_you_mean(str(name), known)}"
            )
    return tuple(known[name] for name in names)


def _find_labels(source: UserFiles) -> tuple[str, ...]:
    found: set[str] = set()
    for _, row in source.file_rows("train"):
        found.add(source.targets.render(row))
        if len(found) > MAX_LABELS:
            return ()
    return tuple(sorted(found))


def _render(row: Row, source: UserFiles, numbers: bool) -> Iterable[Example]:
    # Only possible in the test split, in which either all of an answer's columns are empty or none.
    withheld = bool(empty_columns(row, source.targets))
    # A row without an answer is identified by all of its columns.
    used = {*source.targets.columns, *(() if withheld else source.inputs.columns)}
    rest = {column: value for column, value in row.items() if column not in used}
    target = UNLABELED if withheld else source.targets.render(row)
    if numbers and not withheld and not metrics.is_number(target):
        raise ValueError(f"the answer {target!r} is not a number, as the metric expects")
    yield Example(
        inputs=source.inputs.render(row),
        targets=target,
        metadata={"row": rest} if rest else {},
        withheld=withheld,
    )
