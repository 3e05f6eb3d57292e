"""Rows of Parquet files and Arrow record batches, as JSON values."""

import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning.data.text_files import open_file
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath

JsonRow = dict[str, Any]


def parquet_rows(path: FilePath) -> Iterator[tuple[str, JsonRow]]:
    """Yields the rows of a Parquet file, each with its place.

    Raises:
      UserError: the file can't be read.
    """
    import pyarrow
    import pyarrow.parquet

    with open_file(path) as file:
        try:
            seekable = file if file.seekable() else io.BytesIO(file.read())
            parquet = pyarrow.parquet.ParquetFile(seekable)
            yield from arrow_rows(str(path), parquet.schema_arrow, parquet.iter_batches())
        except pyarrow.ArrowException as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} can't be read as Parquet ({reason}).") from error


def arrow_rows(
    name: str, schema: Any, batches: Iterable[Any], features: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, JsonRow]]:
    """Yields the rows of Arrow record batches.

    Class labels, which Hugging Face stores as integers, become their names.

    Args:
      name: the file's name, for the place of a row.
      schema: the Arrow schema.
      batches: the record batches.
      features: those of Hugging Face's `dataset_info.json`; the schema's if None.
    """
    words = _class_names(features or _features(schema))
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield f"{name}, row {number}", plain_row(row, words)


def plain_row(row: Mapping[str, Any], words: Mapping[str, Sequence[str]]) -> JsonRow:
    """Returns a row as JSON values: class labels by name, dates as text, without raw bytes.

    An empty cell becomes an empty string, as in a CSV file.
    """
    plain = {name: _plain(value) for name, value in row.items() if not isinstance(value, bytes)}
    for name, names in words.items():
        value = plain.get(name)
        if isinstance(value, list):
            plain[name] = [_class_name(number, names) for number in value]
        elif value is not None:
            plain[name] = _class_name(value, names)
    return {name: "" if value is None else value for name, value in plain.items()}


def _class_name(number: Any, names: Sequence[str]) -> str | None:
    """Returns the name of a class; -1 is Hugging Face's mark of a withheld label."""
    return names[number] if isinstance(number, int) and 0 <= number < len(names) else None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    if isinstance(value, float) and math.isnan(value):  # pandas' empty cell
        return None
    return value if isinstance(value, str | int | float | None) else str(value)


def _features(schema: Any) -> Mapping[str, Any]:
    """Returns the features that Hugging Face stores in an Arrow schema, if any."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])
        return found["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}


def _class_names(features: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Returns the class names of each column of class labels, or of lists of them."""
    found = {}
    for name, feature in features.items():
        inner = feature.get("feature") if isinstance(feature, dict) else None
        for one in (feature, inner):
            if isinstance(one, dict) and one.get("names"):
                found[name] = one["names"]
    return found
