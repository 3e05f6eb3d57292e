"""Rows of a table: CSV, TSV, jsonl, JSON and Parquet files, and Hugging Face datasets.

    for where, row in read_table(as_path("reviews.csv")): ...

Each row is a dict of JSON values and comes with its place, "file:line" of its first line, or
"file, row 3" in formats without lines. The first line of a CSV or TSV file names its columns; CSV
is quoted as by spreadsheets, TSV isn't quoted, as in GLUE. `text_files.py` handles encoding, line
ends and compression.
"""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.data.arrow_rows import JsonRow, parquet_rows
from prompt_tuning.data.dataset_rows import HUB, hub_rows, saved_rows
from prompt_tuning.data.text_files import read_lines, uncompressed_name
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path
from prompt_tuning.json_text import parse_json

JSON_LINES = (".jsonl", ".ndjson")
_TEXT = (".csv", ".tsv", *JSON_LINES, ".json")
FORMATS = (*_TEXT, ".parquet")
"""Supported suffixes; a compression's (.gz, ...) may follow those of text files."""

_SEPARATORS = ",;\t|"
"""The separator of a CSV file is the first of these in its first line."""


def table_format(path: str | FilePath) -> str | None:
    """Returns the suffix of a table's format, "hf" for a dataset, or None if unknown."""
    if str(path).startswith(HUB):
        return "hf"
    path = as_path(path)
    suffix = Path(uncompressed_name(path)).suffix.lower()
    if suffix in FORMATS:
        return suffix
    return "hf" if path.is_dir() or not path.suffix else None


def check_format(path: str | FilePath) -> str:
    """Returns `table_format`; raises UserError if it is unknown."""
    if (kind := table_format(path)) is None:
        raise UserError(
            f"{path} doesn't end in {', '.join(FORMATS)} (optionally followed by .gz, .bz2, .xz "
            "or .zst), and isn't a saved dataset; a dataset of the Hugging Face hub is "
            f"{HUB}NAME:SPLIT."
        )
    return kind


def read_table(path: str | FilePath) -> Iterator[tuple[str, JsonRow]]:
    """Yields each row of a table with its place.

    Args:
      path: a file, the folder of a saved Hugging Face dataset, or one on the hub, "hf:...".

    Raises:
      UserError: the format isn't known, the file is missing or damaged, or a row is malformed.
    """
    kind = check_format(path)
    if kind == "hf":
        name = str(path)
        return hub_rows(name) if name.startswith(HUB) else saved_rows(as_path(path))
    readers = {".csv": _separated_rows, ".tsv": _separated_rows, ".json": _json_rows}
    return (readers | {".parquet": parquet_rows}).get(kind, json_lines)(as_path(path))


def json_lines(path: FilePath) -> Iterator[tuple[str, JsonRow]]:
    """Yields the JSON objects of a file with one per line; raises as `read_table`."""
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = load_json(line)
        except ValueError as error:
            raise UserError(f"{where}: {error}; expected one JSON object per line.") from error
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, found {line.strip()[:40]!r}.")
        yield where, row


def load_json(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises:
      ValueError: it isn't JSON, or contains a lone surrogate.
    """
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error
    check_characters(text)
    if r"\ud" in text.casefold():  # JSON can only escape a surrogate
        check_characters(json.dumps(value, ensure_ascii=False))
    return value


def check_characters(text: str) -> None:
    """Raises ValueError for a lone surrogate, which UTF-8 can't encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])
        raise ValueError(f"{half} is half a character (a lone surrogate), not text") from error


def _json_rows(path: FilePath) -> Iterator[tuple[str, JsonRow]]:
    """Yields the rows of a .json file: one list of objects, or one object per line, as in C4."""
    lines = read_lines(path)
    first = next((line for line in lines if line.strip()), "")
    if not first.lstrip().startswith("["):
        yield from json_lines(path)
        return
    try:
        rows = load_json("".join([first, *lines]))
    except ValueError as error:
        raise UserError(f"{path}: {error}; expected a list of JSON objects.") from error
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, found {str(row)[:40]!r}.")
        yield where, row


def _separated_rows(path: FilePath) -> Iterator[tuple[str, JsonRow]]:
    csv.field_size_limit(2**31 - 1)  # by default, 128 KiB
    lines = read_lines(path)
    if table_format(path) == ".tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        first = next(lines, "")
        separator = next((each for each in _SEPARATORS if each in first), ",")
        reader = csv.reader(itertools.chain([first], lines), delimiter=separator, strict=True)
    header: list[str] = []
    line = 1
    try:
        for values in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not any(values):  # an empty line, or a spreadsheet's row of empty cells
                continue
            if not header:
                header = _checked_header(where, values)
                continue
            if len(values) > len(header) and not any(values[len(header) :]):
                values = values[: len(header)]
            if len(values) != len(header):
                raise UserError(
                    f"{where}: {len(values)} fields, but the first line names {len(header)} "
                    f"columns ({', '.join(header)}); quote fields that contain a separator."
                )
            yield where, dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{line}: malformed row ({error}).") from error


def _checked_header(where: str, names: Sequence[str]) -> list[str]:
    """Returns the names of the columns, without unnamed ones at the end."""
    names = [name.strip() for name in names]
    while not names[-1]:
        names.pop()
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{where}: the column {twice[0]!r} is named twice; rename one.")
    return names
