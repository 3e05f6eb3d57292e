"""Combines a sweep's axes into the settings of its runs: a grid, a list, or zipped values.

    axes = [*grid_axes({"SEED": [0, 1]}), *list_axis([{"PROMPT_LENGTH": 1}, {"PROMPT_LENGTH": 20}])]
    for settings in combinations(axes): ...

A setting is a gin name with its value. `GIN_FILES` adds gin files, so that a sweep can vary models,
tasks and methods by their files.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning.errors import UserError

GIN_FILES = "gin_file"
"""In place of a gin name: a file or list of files, read after the sweep's own gin files."""

Settings = Mapping[str, Any]
Axis = Sequence[Settings]
"""Alternative settings, of which each run has one."""

_LONGEST_VALUE = 24
_LONGEST_SLUG = 100


def grid_axes(grid: Mapping[str, Any], where: str = "The sweep's grid") -> list[Axis]:
    """Returns an axis for each name, so that all values of all names are combined.

    Args:
      grid: lists of values by name.
      where: description of the grid in messages.

    Raises:
      UserError: a value isn't a non-empty list.
    """
    for name, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise UserError(
                f"{where} has {name} = {values!r}; expected a list of values, such as "
                f"{{'{name}': [...]}}."
            )
    return [[{name: value} for value in values] for name, values in grid.items()]


def zipped_axis(columns: Mapping[str, Sequence[Any]]) -> list[Axis]:
    """Returns one axis of zipped values: the first of each list, the second, and so on.

    Raises:
      UserError: the lists differ in length.
    """
    if not columns:
        return []
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise UserError(f"The lists of the sweep's zip must have equal lengths, but {told} values.")
    return [[dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]]


def list_axis(alternatives: Sequence[Any]) -> list[Axis]:
    """Returns one axis of explicit settings.

    Raises:
      UserError: an alternative isn't a mapping.
    """
    for each in alternatives:
        if not isinstance(each, Mapping):
            raise UserError(
                f"The sweep's list has {each!r}; expected settings by name, such as "
                "{'SEED': 1, 'PROMPT_LENGTH': 20}."
            )
    return [list(alternatives)] if alternatives else []


def combinations(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    """Yields the settings of every run; the last axis varies fastest.

    Raises:
      UserError: two axes set the same name.
    """
    names = [name for axis in axes for name in dict.fromkeys(n for each in axis for n in each)]
    twice = next((name for name in names if name != GIN_FILES and names.count(name) > 1), None)
    if twice:
        raise UserError(f"The sweep sets {twice} twice; keep it in only one of grid, zip and list.")
    for chosen in itertools.product(*axes):
        settings: dict[str, Any] = {}
        files: list[str] = []
        for each in chosen:
            files += gin_files(each)
            settings |= {name: value for name, value in each.items() if name != GIN_FILES}
        yield {GIN_FILES: files, **settings} if files else settings


def gin_files(settings: Settings) -> list[str]:
    """Returns the gin files in settings."""
    files = settings.get(GIN_FILES, [])
    return [files] if isinstance(files, str) else list(files)


def slug(settings: Settings) -> str:
    """Returns settings as a readable part of a folder name: `rte-prompt_length_20-seed_1`."""
    parts = [re.sub(r"\.gin$", "", file).rpartition("/")[2] for file in gin_files(settings)]
    parts += [
        setting_slug(name, value, _LONGEST_VALUE)
        for name, value in settings.items()
        if name != GIN_FILES
    ]
    return "-".join(parts)[:_LONGEST_SLUG].rstrip("-_.") or "as_set"


def setting_slug(name: str, value: Any, longest: int) -> str:
    """Returns a setting as a part of a name, `seed_1`; truncates its value to `longest`."""
    text = re.sub(r"[^\w.+-]+", "_", str(value)).strip("_.")[:longest]
    return f"{name.rpartition('.')[2].lower()}_{text}"


def short_hash(value: Any) -> str:
    """Returns a hash of a JSON-serializable value, as eight hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
