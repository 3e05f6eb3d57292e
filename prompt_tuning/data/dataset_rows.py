"""Rows of Hugging Face datasets: saved in a folder, or on the hub (the extra `datasets`).

A folder written by `Dataset.save_to_disk` needs only Arrow.
"""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from typing import Any

from prompt_tuning.data.arrow_rows import JsonRow, arrow_rows, plain_row
from prompt_tuning.data.text_files import open_file
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath
from prompt_tuning.json_text import parse_json

HUB = "hf:"
_HUB_NAME = re.compile(rf"{HUB}(?P<name>[^:]+):(?P<split>[^:]+)")


def saved_rows(folder: FilePath) -> Iterator[tuple[str, JsonRow]]:
    """Yields the rows of one split in a folder written by `save_to_disk`.

    Raises:
      UserError: it isn't such a folder, contains several splits, or is damaged.
    """
    import pyarrow

    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        raise UserError(
            f"{folder} contains several splits; give one of "
            f"{', '.join(str(folder / split) for split in splits)}."
        )
    state = _json(folder / "state.json")
    features = _json(folder / "dataset_info.json").get("features") or {}
    number = 0
    for data_file in state.get("_data_files", []):
        path = folder / data_file["filename"]
        with open_file(path) as file:
            try:
                with pyarrow.ipc.open_stream(file) as batches:
                    for _, row in arrow_rows(str(path), batches.schema, batches, features):
                        number += 1
                        yield f"{folder}, row {number}", row
            except pyarrow.ArrowException as error:
                reason = " ".join(str(error).split())
                raise UserError(f"{path} can't be read as Arrow ({reason}).") from error


def _json(path: FilePath) -> dict[str, Any]:
    if not path.parent.exists():
        raise UserError(f"Cannot read {path.parent}: it is missing; check the path.")
    if not path.is_file():
        raise UserError(
            f"{path.parent} is a folder, but not a saved dataset: it has no {path.name}; expected "
            "a file, or a folder written by Dataset.save_to_disk."
        )
    try:
        with open_file(path) as file:
            return dict(parse_json(file.read()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a JSON object ({error}).") from error


def hub_rows(name: str) -> Iterator[tuple[str, JsonRow]]:
    """Yields the rows of a dataset on the hub, "hf:NAME:SPLIT" or "hf:NAME/CONFIG:SPLIT".

    `datasets` stores downloads in its own cache. NAME may have an owner; the last of two parts is a
    config if the hub has no dataset of the whole name.

    Raises:
      UserError: the name has another form, or `datasets` isn't installed or can't load it.
    """
    found = _HUB_NAME.fullmatch(name)
    if not found:
        raise UserError(
            f"{name!r} is not the name of a hub dataset; expected {HUB}NAME:SPLIT or "
            f"{HUB}NAME/CONFIG:SPLIT, such as {HUB}glue/sst2:train."
        )
    if importlib.util.find_spec("datasets") is None:
        raise UserError(
            f"{name} needs Hugging Face's datasets: pip install 'prompt-tuning[datasets]'."
        )
    rows = _load(name, found["name"], found["split"])
    words = {
        column: names
        for column, feature in (rows.features or {}).items()
        for one in (feature, getattr(feature, "feature", None))  # a label or a list of labels
        if (names := getattr(one, "names", None))
    }
    for number, row in enumerate(rows, start=1):
        yield f"{name}, row {number}", plain_row(row, words)


def _load(name: str, data_set: str, split: str) -> Any:
    import datasets  # pyright: ignore[reportMissingImports] - an extra

    errors: list[str] = []
    for arguments in _readings(data_set):
        try:
            return datasets.load_dataset(*arguments, split=split)
        except Exception as error:  # of HTTP, of the file system, and of `datasets` itself
            reason = " ".join(str(error).split())
            errors.append(f"{type(error).__name__}: {reason[:200]}")
    raise UserError(f"{name} can't be loaded by Hugging Face's datasets ({errors[0]}).")


def _readings(data_set: str) -> Sequence[tuple[str, ...]]:
    """Returns the readings of a name: with its last part as a config, or without one."""
    parts = data_set.split("/")
    if len(parts) == 1:
        return [(data_set,)]
    if len(parts) == 3:
        return [("/".join(parts[:2]), parts[2])]
    return [(data_set,), (parts[0], parts[1])]
