"""Sources of a task's rows: files, or TFDS exported once to jsonl files.

A source yields each row with the place where it was read, so that errors state file and line.
`text_files.py` and `tables.py` read the files. Only a TFDS split's first use imports TensorFlow.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from prompt_tuning.data.tables import JsonRow, json_lines, load_json
from prompt_tuning.data.text_files import read_lines
from prompt_tuning.errors import UserError, listed
from prompt_tuning.files import FilePath, as_path, cache_file


@runtime_checkable
class Source(Protocol):
    """Rows of a task by split."""

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        """Yields `(where, row)`, where `where` is "file:line"."""
        ...


def _one_row(row: JsonRow) -> Iterable[JsonRow]:
    return (row,)


@dataclass(frozen=True, kw_only=True)
class JsonlSource:
    """One JSON object per line, one file per split.

    Attributes:
      files: the file of each split.
      expand: turns a line into the task's rows, for formats that nest several in one. It
        raises KeyError for a missing field and ValueError for a bad one.
    """

    files: Mapping[str, FilePath]
    expand: Callable[[JsonRow], Iterable[JsonRow]] = _one_row

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        for where, row in json_lines(_file_of(split, self.files)):
            yield from _expanded(where, row, self.expand)


@dataclass(frozen=True, kw_only=True)
class TsvSource:
    """Rows of tab-separated columns, without quoting, one file per split; every value is text.

    Each row also gets its index in the file as "idx".

    Attributes:
      files: the file of each split.
      columns: the names of the columns, by split; other splits have a header line.
      skip_short: skip rows with too few columns instead of raising an error.
      expand: as for `JsonlSource`.
    """

    files: Mapping[str, FilePath]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    skip_short: bool = False
    expand: Callable[[JsonRow], Iterable[JsonRow]] = _one_row

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        path = _file_of(split, self.files)
        # Not the `csv` module, which rejects long fields.
        lines = (line.rstrip("\n").split("\t") for line in read_lines(path))
        columns = self.columns.get(split)
        first = 1 if columns else 2
        columns = columns or next(lines, [])
        for number, values in enumerate(lines):
            where = f"{path}:{first + number}"
            if len(values) < len(columns):
                if self.skip_short:
                    continue
                raise UserError(
                    f"{where}: {len(values)} columns; expected {len(columns)}: "
                    f"{', '.join(columns)}, separated by tabs."
                )
            row = {"idx": number} | dict(zip(columns, values, strict=False))
            yield from _expanded(where, row, self.expand)


@dataclass(frozen=True, kw_only=True)
class JsonSource:
    """One JSON value per file, one file per split, such as SQuAD's.

    Attributes:
      files: the file of each split.
      expand: turns the file's value into the task's rows; raises as for `JsonlSource`.
    """

    files: Mapping[str, FilePath]
    expand: Callable[[JsonRow], Iterable[JsonRow]]

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        path = _file_of(split, self.files)
        try:
            content = load_json("".join(read_lines(path)))
        except ValueError as error:
            raise UserError(f"{path}: {error}.") from error
        if not isinstance(content, dict):
            raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}.")
        rows = _expanded(str(path), content, self.expand)
        for number, (_, row) in enumerate(rows, start=1):
            yield f"{path}, row {number}", row


def _file_of(split: str, files: Mapping[str, FilePath]) -> FilePath:
    if split not in files:
        raise UserError(f"No split {split!r}; expected one of {', '.join(files)}.")
    return as_path(files[split])


def _expanded(
    where: str, row: JsonRow, expand: Callable[[JsonRow], Iterable[JsonRow]]
) -> Iterator[tuple[str, JsonRow]]:
    with bad_rows_named(where, row):
        expanded = list(expand(row))
    for one in expanded:
        yield where, one


@contextmanager
def bad_rows_named(where: str, row: Mapping[str, Any]) -> Iterator[None]:
    """Turns the errors of a preprocessor into a `UserError` with the file and line."""
    try:
        yield
    except KeyError as error:
        found = listed([repr(name) for name in row])
        raise UserError(f"{where}: no field {error}; found {found}.") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error
    except (TypeError, AttributeError, IndexError) as error:  # a field of another type
        raise UserError(f"{where}: unexpected layout ({type(error).__name__}: {error}).") from error


@dataclass(frozen=True, kw_only=True)
class TfdsSource:
    """A TFDS dataset, exported to jsonl in the cache when a split is first read.

    Attributes:
      name: the dataset and config without a version, such as "super_glue/rte"; TFDS uses the
        newest version, which is part of the export's file name.
      minimum_version: older prepared datasets are rejected.
      data_dir: TFDS's data folder; TFDS's default if None.
      cache_dir: the folder of the export.
      splits: TFDS's names of splits that differ from ours.
      fields: the fields to read; all of them if None.
    """

    name: str
    minimum_version: str
    data_dir: str | None
    cache_dir: Path
    splits: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[str] | None = None

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        split = self.splits.get(split, split)
        origin = self.data_dir or os.environ.get("TFDS_DATA_DIR") or "default"
        folder = hashlib.sha256(origin.encode()).hexdigest()[:8]
        exports = self.cache_dir / "tfds" / f"{self.name.replace('/', '-')}-{folder}"
        versions = {
            _version(path.stem.removeprefix(f"{split}-")): path
            for path in exports.glob(f"{split}-*.jsonl")
        }
        newest = max(versions, default=())
        if newest >= _version(self.minimum_version):
            exported = versions[newest]
        else:
            exported = self._export(split, exports)
        return JsonlSource(files={split: exported}).rows(split)

    def _export(self, split: str, folder: Path) -> Path:
        from prompt_tuning.data.tfds_rows import read_tfds

        version, rows = read_tfds(
            self.name, self.minimum_version, self.data_dir, split, self.fields
        )
        path = folder / f"{split}-{version}.jsonl"
        with cache_file(path) as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return path


def hash_draw(text: str) -> float:
    """Returns a hash of the text as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def row_draw(row: Mapping[str, Any]) -> float:
    """Returns a hash of the row's contents as a number in [0, 1)."""
    return hash_draw(json.dumps(row, sort_keys=True))


def _version(text: str) -> tuple[int, ...]:
    """Returns a version's parts as integers: "1.0.10" is newer than "1.0.9"."""
    return tuple(map(int, re.findall(r"\d+", text)))
