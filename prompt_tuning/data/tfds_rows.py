"""Rows of a TFDS dataset as plain Python values; imports TensorFlow.

Class labels become their names (None if withheld), bytes become text. `sources.py` caches the
result, so this runs once per split.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from prompt_tuning.data.quiet_tensorflow import tfds
from prompt_tuning.errors import UserError


def read_tfds(
    name: str,
    minimum_version: str,
    data_dir: str | None,
    split: str,
    fields: Sequence[str] | None = None,
    *,
    prepare: bool = True,
) -> tuple[str, Iterator[dict[str, Any]]]:
    """Returns the version and the rows of one split, in TFDS's own order.

    Downloads and prepares the dataset if `data_dir` doesn't contain it, unless `prepare` is False.
    Only `fields` of each row are read, or everything if None.

    Raises:
      UserError: the dataset is unknown, too old, has no such split or can't be downloaded.
    """
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # a warning for each retry
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir)  # TFDS's own types are too narrow
        if prepare:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                builder.download_and_prepare()
    except Exception as error:  # TFDS raises various types, with pages of text
        raise UserError(
            f"TFDS cannot prepare {name} in {data_dir or 'its default folder'}: {_reason(error)}. "
            "Give a folder of the official files, --gin.DATA_DIR=FOLDER, or a TFDS folder that "
            "contains it, --gin.DATA_DIR=tfds:FOLDER (docs/tasks.md)."
        ) from error
    if not builder.is_prepared():
        raise UserError(
            f"TFDS's {name} is not in {data_dir or 'its default folder'}, and preparing it needs "
            "a cluster; give a data folder that contains it, or text files."
        )
    if builder.version < minimum_version:
        raise UserError(f"TFDS has {name}:{builder.version}; expected {minimum_version} or newer.")
    if split not in builder.info.splits:
        known = ", ".join(builder.info.splits)
        raise UserError(f"TFDS's {name} has no split {split!r}; expected one of {known}.")
    wanted = fields and tfds.decode.PartialDecoding(dict.fromkeys(fields, True))
    dataset = builder.as_dataset(split=split, shuffle_files=False, decoders=wanted)
    labels = {
        field: feature.names
        for field, feature in builder.info.features.items()
        if isinstance(feature, tfds.features.ClassLabel) and field in (fields or (field,))
    }
    return str(builder.version), (_plain_row(row, labels) for row in tfds.as_numpy(dataset))


def _reason(error: Exception) -> str:
    """Describes an error in one line: the unreachable server, or the error's first line."""
    request = getattr(error, "request", None)
    if isinstance(error, OSError) and request is not None:
        return f"{urlsplit(request.url).hostname} can't be reached"
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")


def _plain_row(row: dict[str, Any], labels: dict[str, list[str]]) -> dict[str, Any]:
    plain = {field: _plain(value) for field, value in row.items()}
    for field, names in labels.items():
        plain[field] = names[plain[field]] if plain[field] >= 0 else None
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value
