"""Functions that tables of tasks share: data folders, and text with or without a task's name.

A data folder (`--gin.DATA_DIR`) is a folder of the official files, "tfds" (also if None), or
"tfds:FOLDER" with the data folder of TFDS.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prompt_tuning.data import preprocessors
from prompt_tuning.data.preprocessors import Row
from prompt_tuning.data.sources import Source, TfdsSource
from prompt_tuning.data.tasks.task import Example, Task, register_task
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, default_cache_dir

Text = Callable[[Row], str]
"""Returns the encoder's input text for a row."""


def is_tfds(data_dir: str | None) -> bool:
    """Returns whether the data folder denotes TFDS."""
    return data_dir is None or data_dir == "tfds" or data_dir.startswith("tfds:")


def tfds_source(
    data_dir: str | None,
    name: str,
    minimum_version: str,
    *,
    splits: Mapping[str, str] | None = None,
    fields: Sequence[str] | None = None,
) -> Source:
    """Returns a TFDS dataset as a source; see `TfdsSource` for the arguments."""
    return TfdsSource(
        name=name,
        minimum_version=minimum_version,
        data_dir=(data_dir or "").partition(":")[2] or None,
        cache_dir=default_cache_dir(),
        splits=splits or {},
        fields=fields,
    )


def existing_folder(data_dir: str | None, holding: str, instead: str = "tfds") -> FilePath:
    """Returns the data folder.

    Args:
      data_dir: the user's, not denoting TFDS.
      holding: the expected contents, for the message.
      instead: what may be given instead of a folder, for the message.

    Raises:
      UserError: there is no such folder.
    """
    folder = as_path(data_dir or "")
    if not folder.is_dir():
        raise UserError(
            f"Data folder {folder} does not exist; expected a folder with {holding} (or "
            f"'{instead}')."
        )
    return folder


def first_file(folder: FilePath, names: Sequence[str]) -> FilePath:
    """Returns the first existing file, or the first name if none exists."""
    found = (folder / name for name in names if (folder / name).is_file())
    return next(found, folder / names[0])


def fields(*names: str, **renamed: str) -> Text:
    """Returns a function from a row to `name: value name: value ...`; see `fields_text`."""
    shown = {name: name for name in names} | renamed
    return functools.partial(preprocessors.fields_text, fields=shown)


def register_both(
    name: str, t5_name: str, text: Text, render: Callable[..., Iterable[Example]], **options: Any
) -> None:
    """Registers a task as NAME, and as NAME_with_name, whose text starts with T5's task name.

    Args:
      name: the task's name.
      t5_name: the task's name in T5's text.
      text: returns the inputs without the name.
      render: `Task.render`, with an additional argument `text`.
      options: the other fields of `Task`.
    """
    for suffix, found in (("", text), ("_with_name", lambda row: f"{t5_name} {text(row)}")):
        render_text = functools.partial(render, text=found)
        register_task(Task(name=f"{name}{suffix}", render=render_text, text=found, **options))
