"""A task made of a user's own CSV, TSV or jsonl files and two templates, without any Python.

    UserFiles(files={"train": Path("reviews.csv")}, inputs=..., targets=...)   # the rows
    user_task(source, ...)                                                     # the task

The columns of a CSV or TSV file are named by its first line; CSV is quoted as spreadsheets write
it, TSV isn't quoted at all, as in GLUE. A jsonl file has an object a line. Where there is no
validation file, a share of the training rows is held out: which ones is decided by a hash of the
row itself, so that it doesn't depend on the order of the rows, and a row that stands there twice
is never on both sides. `templates.py` makes the text.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prompt_tuning.data import metrics
from prompt_tuning.data.preprocessors import UNLABELLED, Row
from prompt_tuning.data.sources import bad_rows_named
from prompt_tuning.data.tables import JsonRow, check_format, read_table, table_format
from prompt_tuning.data.tasks.task import Example, Metric, Task
from prompt_tuning.data.templates import Template
from prompt_tuning.data.text_files import FilePath, uncompressed_name
from prompt_tuning.errors import UserError, did_you_mean, listed

MAX_LABELS = 20
"""Up to as many different targets are taken for labels, where the user doesn't say."""


@dataclass(frozen=True, kw_only=True)
class UserFiles:
    """The rows of a user's files.

    Attributes:
        files: the file of each split; "train" there must be, "validation" may be.
        inputs: what the encoder is to read.
        targets: what the decoder is to say; its columns may be missing in the test split.
        held_out: the share of the training rows that are the validation split where that has no
            file of its own.

    Raises:
        UserError: a file is of no known kind, or the share is not between 0 and 1.
    """

    files: Mapping[str, FilePath]
    inputs: Template
    targets: Template
    held_out: float = 0.1

    def __post_init__(self):
        for path in self.files.values():
            check_format(path)
        if not 0 < self.held_out < 1:
            raise UserError(f"held_out is {self.held_out}; expected a share such as 0.1.")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that there are."""
        return ("train", "validation", *(("test",) if "test" in self.files else ()))

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        """Yields each row of a split with the file and line it begins at.

        Raises:
            UserError: a file is missing, empty or damaged, a row is malformed, a column that a
                template names isn't there, or no row is held out.
        """
        if split == "test" or "validation" in self.files:
            yield from self.file_rows(split)
            return
        found = False
        for where, row in self.file_rows("train"):
            if (share(row) < self.held_out) == (split == "validation"):
                found = True
                yield where, row
        if not found:
            raise UserError(
                f"{self.files['train']} has too few rows to hold out {self.held_out:g} of them "
                f"for validation: none is left for {split}; give VALIDATION_FILE."
            )

    def file_rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        """Yields every row of one file, the held out ones too; raises as `rows`."""
        path = self.files[split]
        count = 0
        for where, row in read_table(path):
            self._check(where, row, withheld=split == "test")
            count += 1
            yield where, row
        if not count:
            raise UserError(f"{path} is empty; expected rows{_header_expected(path)}.")

    def _check(self, where: str, row: JsonRow, *, withheld: bool) -> None:
        for template in (self.inputs, *(() if withheld else (self.targets,))):
            for column in template.columns:
                if column not in row:
                    raise UserError(
                        f"{where}: no column {column!r}, which the {template.name} names; there "
                        f"are {listed([repr(name) for name in row])}.{did_you_mean(column, row)}"
                    )
            with bad_rows_named(where, row):
                if not template.render(row):
                    raise ValueError(f"the {template.name} {template.text!r} gives no text")
        with bad_rows_named(where, row):
            self._check_answer(row, withheld=withheld)

    def _check_answer(self, row: JsonRow, *, withheld: bool) -> None:
        """Refuses half an answer, and in a split that is not the test split also no answer."""
        empty = empty_columns(row, self.targets)
        if empty and not (withheld and set(empty) == set(self.targets.columns)):
            raise ValueError(
                f"column {empty[0]!r}, which the target template names, is empty; fill it in"
                + (", or leave every column of the answer empty to withhold it" * withheld)
            )


def share(row: Row) -> float:
    """Returns a number in [0, 1) that a hash of the row's contents draws for it."""
    text = json.dumps(row, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:6]) / 2**48


def empty_columns(row: Row, template: Template) -> list[str]:
    """Returns the columns of a template that a row lacks or has nothing in."""
    values = {column: row.get(column) for column in template.columns}
    return [column for column, value in values.items() if value is None or not str(value).strip()]


def user_task(
    source: UserFiles,
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    metric: str | None = None,
) -> Task:
    """Returns the task of a user's files.

    Args:
        source: the files and the templates.
        name: the task's name; None is that of the training file.
        labels: the label words. None: the different targets of the training file if they are
            few (`MAX_LABELS`). Empty: none, the answer is free text. Given any, no file is read,
            so that a run answers without its training file.
        metric: "accuracy", "macro_f1", "matthews" (two labels) or "rouge". None: "accuracy" for
            labels, "rouge" for free text.

    Raises:
        UserError: the training file can't be read, or the metric doesn't suit the labels.
    """
    found = tuple(labels) if labels is not None else _find_labels(source)
    stem = uncompressed_name(source.files["train"]).rpartition(".")[0]
    return Task(
        name=name or stem,
        source=lambda data_dir: source,
        render=lambda row, training: _render(row, source),
        text=source.inputs.render,
        templates=(source.inputs.text, source.targets.text),
        metrics=(_metric(metric or ("accuracy" if found else "rouge"), found),),
        labels=found or None,
        splits=source.splits,
        lengths={"inputs": 512, "targets": 32},
    )


def _metric(name: str, labels: tuple[str, ...]) -> Metric:
    def of_labels(metric: Any) -> Metric:
        return lambda examples, predictions: metric(examples, predictions, labels=labels)

    known: dict[str, Metric] = {"accuracy": metrics.accuracy, "rouge": metrics.rouge}
    if labels:
        known["macro_f1"] = of_labels(metrics.macro_f1)
    if len(labels) == 2:
        known["matthews"] = of_labels(metrics.matthews_correlation)
    if name not in known:
        kind = f"{len(labels)} labels" if labels else "free text"
        raise UserError(f"No metric {name!r} for {kind}; expected one of {', '.join(known)}.")
    return known[name]


def _find_labels(source: UserFiles) -> tuple[str, ...]:
    found: set[str] = set()
    for _, row in source.file_rows("train"):
        found.add(source.targets.render(row))
        if len(found) > MAX_LABELS:
            return ()
    return tuple(sorted(found))


def _render(row: Row, source: UserFiles) -> Iterable[Example]:
    # Only a row of the test split can: in it every column of the answer is empty, or none.
    withheld = bool(empty_columns(row, source.targets))
    used = {*source.inputs.columns, *source.targets.columns}
    rest = {column: value for column, value in row.items() if column not in used}
    yield Example(
        inputs=source.inputs.render(row),
        targets=UNLABELLED if withheld else source.targets.render(row),
        metadata={"row": rest} if rest else {},
        withheld=withheld,
    )


def _header_expected(path: FilePath) -> str:
    has_header = table_format(path) in (".csv", ".tsv")
    return " below a line that names the columns" if has_header else ""
