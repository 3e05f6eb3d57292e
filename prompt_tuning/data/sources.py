"""Where the rows of a task come from: jsonl files, or TFDS exported once to jsonl files.

A source yields rows with the place each was read from, so that a bad row is reported by file
and line. Reading never imports TensorFlow, except for a TFDS split not read before.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write, writing

JsonRow = dict[str, Any]

CACHE_FIX = "Free some space, or choose another cache folder with PROMPT_TUNING_CACHE."
"""What to do when the cache can't be written."""


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

    files: Mapping[str, Path]
    expand: Callable[[JsonRow], Iterable[JsonRow]] = _one_row

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        if split not in self.files:
            raise UserError(f"No split {split!r}; expected one of {', '.join(self.files)}.")
        path = Path(self.files[split])
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(
                    f"{where}: not JSON ({error}); expected one JSON object a line."
                ) from error
            if not isinstance(row, dict):
                raise UserError(f"{where}: expected a JSON object, found {line.strip()[:40]!r}.")
            with bad_rows_named(where, row):
                expanded = list(self.expand(row))
            for one in expanded:
                yield where, one


@contextmanager
def bad_rows_named(where: str, row: Mapping[str, Any]) -> Iterator[None]:
    """Turns the errors of a preprocessor into a `UserError` that names the file and line."""
    try:
        yield
    except KeyError as error:
        found = ", ".join(map(repr, row))
        raise UserError(f"{where}: no field {error}; found {found}.") from error
    except ValueError as error:
        raise UserError(f"{where}: {error}.") from error
    except (TypeError, AttributeError, IndexError) as error:  # a field of another kind
        raise UserError(f"{where}: unexpected layout ({type(error).__name__}: {error}).") from error


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}).") from error
    except OSError as error:
        missing = next((p for p in (*reversed(path.parents), path) if not p.exists()), None)
        reason = f"{missing} is missing" if missing else error.strerror
        raise UserError(
            f"Cannot read {path}: {reason}; expected the jsonl file of a split. "
            "Check the data folder."
        ) from error


@dataclass(frozen=True, kw_only=True)
class TfdsSource:
    """A TFDS data set, exported to jsonl in the cache when a split is first read.

    Attributes:
        name: the data set and config without a version, such as "super_glue/rte"; TFDS takes the
            newest it has, and the export's file name records which.
        minimum_version: an older prepared data set is refused.
        data_dir: TFDS's data folder; None is TFDS's own default.
        cache_dir: where the export is kept.
    """

    name: str
    minimum_version: str
    data_dir: str | None
    cache_dir: Path

    def rows(self, split: str) -> Iterator[tuple[str, JsonRow]]:
        origin = self.data_dir or os.environ.get("TFDS_DATA_DIR") or "default"
        folder = hashlib.sha256(origin.encode()).hexdigest()[:8]
        exports = self.cache_dir / "tfds" / f"{self.name.replace('/', '-')}-{folder}"
        exported = next(iter(sorted(exports.glob(f"{split}-*.jsonl"), reverse=True)), None)
        if exported is None:
            exported = self._export(split, exports)
        return JsonlSource(files={split: exported}).rows(split)

    def _export(self, split: str, folder: Path) -> Path:
        from prompt_tuning.data.tfds_rows import read_tfds

        version, rows = read_tfds(self.name, self.minimum_version, self.data_dir, split)
        path = folder / f"{split}-{version}.jsonl"
        with cache_file(path) as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return path


def default_cache_dir() -> Path:
    """Returns $PROMPT_TUNING_CACHE, or `prompt_tuning` in the user's cache folder."""
    if chosen := os.environ.get("PROMPT_TUNING_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prompt_tuning"


@contextmanager
def cache_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a file of the cache, making its folder; it takes its name once it is whole.

    Raises:
        UserError: the folder cannot be written or the disk is full.
    """
    with writing(path, fix=CACHE_FIX):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, fix=CACHE_FIX) as file:
        yield file
