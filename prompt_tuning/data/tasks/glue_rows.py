"""GLUE's rows: from the official tsv to TFDS's fields, and from those to examples.

The table in `glue.py` lists the columns and label words of each task.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prompt_tuning.data.preprocessors import UNLABELED, Row
from prompt_tuning.data.sources import TsvSource
from prompt_tuning.data.tasks.tables import Text
from prompt_tuning.data.tasks.task import Example
from prompt_tuning.data.text_files import read_lines
from prompt_tuning.files import FilePath

Columns = Mapping[str, str | tuple[str, ...]]
"""Maps a text field to its column in the official file, or to the column's names by release."""


def flatten(
    row: dict[str, Any], *, columns: Columns, label: str, words: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields a row with its label word, or None if the column `label` is missing."""
    found = row.get(label)
    yield _texts(row, columns) | {"label": None if found is None else _word(found, words)}


def flatten_similarity(
    row: dict[str, Any], *, columns: Columns, label: str, words: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields a row with its score, or None if the column `label` is missing."""
    del words
    found = row.get(label)
    yield _texts(row, columns) | {"label": None if found is None else float(found)}


def _texts(row: dict[str, Any], columns: Columns) -> dict[str, Any]:
    texts = {"idx": row["idx"]}
    for name, column in columns.items():
        candidates = (column,) if isinstance(column, str) else column
        texts[name] = row[next((c for c in candidates if c in row), candidates[0])]
    return texts


def _word(label: str, words: Sequence[str]) -> str:
    numbers = {str(number): word for number, word in enumerate(words)}
    if label not in words and label not in numbers:
        raise ValueError(f"label {label!r} is not one of {', '.join((*numbers, *words))}")
    return numbers.get(label, label)


@dataclass(frozen=True, kw_only=True)
class MrpcSource:
    """Microsoft's files of MRPC; `dev_ids.tsv` lists the training rows of the development set."""

    folder: FilePath
    expand: Callable[[dict[str, Any]], Iterable[dict[str, Any]]]

    def rows(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        train, test = (self.folder / f"msr_paraphrase_{part}.txt" for part in ("train", "test"))
        ids = csv.reader(read_lines(self.folder / "dev_ids.tsv"), delimiter="\t")
        development = {tuple(pair) for pair in ids}

        def expand(row: dict[str, Any]) -> Iterable[dict[str, Any]]:
            if split == "test":
                row.pop("Quality", None)  # GLUE withholds it
            elif ((row["#1 ID"], row["#2 ID"]) in development) != (split == "validation"):
                return ()
            return self.expand(row)

        files = {"train": train, "validation": train, "test": test}
        return TsvSource(files=files, expand=expand).rows(split)


def render(
    row: Row, training: bool, *, text: Text, words: Mapping[str, str] | None = None
) -> Iterable[Example]:
    """Yields the row with its label word as the target, rewritten by `words`."""
    del training
    label = row["label"] or UNLABELED
    yield Example(
        inputs=text(row),
        targets=(words or {}).get(label, label),
        metadata={"idx": row["idx"]},
    )


def render_similarity(row: Row, training: bool, *, text: Text) -> Iterable[Example]:
    """Yields the row with its score rounded to the nearest fifth, as in T5; -1 if withheld."""
    del training
    # In single precision with ties to even, as in TensorFlow.
    score = np.float32(-1 if row["label"] is None else row["label"])
    yield Example(
        inputs=text(row),
        targets=UNLABELED if score < 0 else f"{np.round(score * 5) / 5:.1f}",
        metadata={"idx": row["idx"], "score": float(score)},
    )
