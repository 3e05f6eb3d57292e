"""User-provided paths, from the command line and gin files.

A shell expands `~` only at the start of a word, not in `--gin.MODEL_DIR=~/runs/x`.
"""

import functools
import os
from pathlib import Path
from typing import Any

import prompt_tuning
from prompt_tuning.buckets import check_reachable, in_bucket, located
from prompt_tuning.errors import UserError


@functools.cache
def shipped_configs() -> Path:
    """Returns the folder of shipped gin files: inside an installed package, else next to it."""
    package = Path(prompt_tuning.__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def expanded(value: Any) -> Any:
    """Expands `~` and `~/...` in a value, also within lists and dictionaries."""
    if isinstance(value, str):
        return os.path.expanduser(value) if value == "~" or value.startswith("~/") else value
    if type(value) in (list, tuple):
        return type(value)(map(expanded, value))
    if type(value) is dict:
        return {key: expanded(item) for key, item in value.items()}
    return value


def expanded_argument(argument: str) -> str:
    """Expands `~` in an argument, also after the first `=` of `--flag=~/file`."""
    name, equals, value = argument.partition("=")
    return expanded(name) + equals + expanded(value)


def local_path(path: str, name: str) -> str:
    """Returns `path` after checking that it is local.

    Raises:
      UserError: it is empty, or not local; the message names the setting, `name`.
    """
    if not path:
        raise UserError(f"{name} is empty; expected a path (a shell variable that isn't set?).")
    if in_bucket(path := located(path)):
        raise UserError(f"{name} is {path}; give a local path, and copy it to the bucket.")
    return path


def run_folder(path: str, name: str = "MODEL_DIR") -> str:
    """Returns the path of a run folder, local or `gs://BUCKET/...`, after checking it.

    Raises:
      UserError: it is empty, of another scheme, in a bucket that can't be reached, or a file.
    """
    if in_bucket(found := located(path)):
        check_reachable(found)
        return found
    folder = Path(local_path(path, name))
    in_the_way = next((part for part in (folder, *folder.parents) if part.exists()), folder)
    if in_the_way.exists() and not in_the_way.is_dir():
        raise UserError(f"{in_the_way} is a file; {name} must be a folder.")
    return str(folder)
