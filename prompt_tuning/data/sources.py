"""Where the rows of a task come from: files, or TFDS exported once to jsonl files.

A source yields rows with the place each was read from, so that a bad row is reported by file
and line. `text_files.py` and `tables.py` read the files. Reading never imports TensorFlow, except
for a TFDS split not read before.
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
from prompt_tuning.data.text_files import FilePath, as_path, read_lines
from prompt_tuning.errors import UserError, listed
from prompt_tuning.files import cache_file


@runtime_checkable
class Source(Protocol):
    """Rows of a task by split."""

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        """Yields `(where, row)`, `where` being "file:line"."""
        ...


def _one_row(row: JsonRow) -> Iterable[JsonRow]:
    return (row,)


@dataclass(frozen=True, kw_only=True)
class JsonlSource:
    """One JSON object a line, one file a split.

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
    """Rows of tab-separated columns, without quoting, one file a split; every value is text.

    Each row also gets its number in the file, from 0, as "idx".

    Attributes:
      files: the file of each split.
      columns: the names of the columns, by split; a split that is not here has a header line.
      skip_short: leave out rows with too few columns, which are otherwise refused.
      expand: as for `JsonlSource`.
    """

    files: Mapping[str, FilePath]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    skip_short: bool = False
    expand: Callable[[JsonRow], Iterable[JsonRow]] = _one_row

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        path = _file_of(split, self.files)
        # Not the `csv` module, which refuses long fields.
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
    """A whole JSON file a split, such as SQuAD's.

    Attributes:
      files: the file of each split.
      expand: gives the task's rows from what the file holds; raises as for `JsonlSource`.
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
    """Turns the errors of a preprocessor into a `UserError` that names the file and line."""
    try:
        yield
    except KeyError as error:
        found = listed([repr(name) for name in row])
        raise UserError(f"{where}: no field {error}; found {found}.") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error
    except (TypeError, AttributeError, IndexError) as error:  # a field of another kind
        raise UserError(f"{where}: unexpected layout ({type(error).__name__}: {error}).") from error


@dataclass(frozen=True, kw_only=True)
class TfdsSource:
    """A TFDS data set, exported to jsonl in the cache when a split is first read.

    Attributes:
      name: the data set and config without a version, such as "super_glue/rte"; TFDS takes the
        newest it has, and the export's file name records which.
      minimum_version: an older prepared data set is refused.
      data_dir: TFDS's data folder; None is TFDS's own default.
      cache_dir: where the export is kept.
      splits: TFDS's name of a split, where it is another than ours.
      fields: the fields to read; None is all of them.
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
    """Returns a number in [0, 1), drawn by a hash of the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def row_draw(row: Mapping[str, Any]) -> float:
    """Returns a number in [0, 1), drawn by a hash of the row's contents."""
    return hash_draw(json.dumps(row, sort_keys=True))


def _version(text: str) -> tuple[int, ...]:
    """Returns the numbers of a version such as "1.0.10", which is newer than "1.0.9"."""
    return tuple(map(int, re.findall(r"\d+", text)))
