"""Compares a run folder with the configured run.

A setting's definition marks whether it is part of a run's identity (`settings.py`). A macro
inherits the marks of the parameters it sets. Files are compared by a hash of their contents, so
they may be moved.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.files import FilePath, as_path, files_in
from prompt_tuning.recipes.gin_text import literal, resolved
from prompt_tuning.recipes.signatures import default_of, mark
from prompt_tuning.settings import Mark
from prompt_tuning.training.run_folder import Comparison

_NOT_SET = "not set"

IN_USE = "settings in use"
"""Name of a record of the values that 'auto' settings came to; see `models/auto.py`."""

_BEFORE_AUTO = {"compute_dtype": "float32", "attention": "plain", "remat": False, "unroll": 1}
"""Defaults in older versions, whose run folders don't have that record."""


def file_contents(settings: Mapping[str, str]) -> dict[str, str]:
    """Returns short hashes of the files named by settings, as "contents of PARAMETER"."""
    found = {}
    for parameter, (text, _) in resolved(settings).items():
        if mark(parameter).hashed:
            value = literal(text)
            named = [value] if isinstance(value, str) else value or []
            paths = [as_path(each) for each in named if isinstance(each, str)]
            if paths := [path for path in paths if path.exists()]:
                found[f"contents of {parameter}"] = hash_of(paths)
    return found


def hash_of(paths: list[FilePath]) -> str:
    """Returns a short hash of files and of all files in folders."""
    digest = hashlib.sha256()
    for path in paths:
        for file in files_in(path) if path.is_dir() else [path]:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def compare(
    found: Mapping[str, Any], given: Mapping[str, Any], *, mark: Callable[[str], Mark] = mark
) -> Comparison:
    """Compares a run folder's recorded settings with the current configuration.

    Args:
      found: recorded texts by the names of macros and parameters, and hashes of contents.
      given: the current ones.
      mark: returns a parameter's mark.

    Returns:
      The differences that make it another run, and notes to print on allowed differences.
    """
    refused: dict[str, str] = {}
    notes: dict[str, str] = {}
    was, now = _by_parameter(found), _by_parameter(given)
    for parameter in sorted(was.keys() | now.keys()):
        what = mark(parameter)
        default = default_of(parameter)
        unset = _NOT_SET if default is inspect.Parameter.empty else repr(default)
        old, new = was.get(parameter, unset), now.get(parameter, unset)
        if old == new or what.free or (IN_USE in given and _is_in(given[IN_USE], parameter)):
            continue
        name = _name(parameter, found, given)
        if what.is_identity:
            refused[name] = f"{name} is {old} there, {new} now"
        elif what.note:
            notes[name] = f"{name} is {new} now and was {old}: {what.note}."
    if IN_USE in given:
        for name, new in given[IN_USE].items():
            old = _in_use(found).get(name, new)
            if old == new:
                continue
            if name in ("attention", "remat", "unroll"):
                notes[name] = f"{name} is {new} now and was {old}: results differ by rounding."
            else:
                refused[name] = (
                    f"{name} is {old!r} there, {new!r} now (to continue, set it to {old!r})"
                )
    for name in sorted((found.keys() & given.keys()) - {IN_USE}):
        # Hashes of contents, compared only if recorded: older versions recorded fewer.
        if " " in name and found[name] != given[name]:
            refused[name] = f"{name} is {found[name]} there, {given[name]} now{_WHY.get(name, '')}"
    return Comparison(refused=tuple(refused.values()), notes=tuple(notes.values()))


_WHY = {
    "steps of the rungs": ", because of TRAIN_STEPS; --tune has dropped members at the old ones",
    "contents of the frozen weights": ", including their dtype",
}
"""Explanations appended to some rejections."""


def _is_in(in_use: Mapping[str, Any], parameter: str) -> bool:
    section, _, name = parameter.rpartition(".")
    return section in ("frozen_model", "new_model") and name in in_use


def _in_use(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of the settings that may be 'auto', also of older run folders."""
    given = {
        parameter.rpartition(".")[2]: literal(text)
        for parameter, text in _by_parameter(recorded).items()
        if _is_in(_BEFORE_AUTO, parameter)
    }
    return {**_BEFORE_AUTO, **given, **recorded.get(IN_USE, {})}


def _by_parameter(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Returns the recorded parameters with macros resolved."""
    texts = {name: str(text) for name, text in recorded.items() if " " not in name}
    return {name: text for name, (text, _) in resolved(texts).items()}


def _name(parameter: str, found: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Returns a parameter's name for users: its macro, if that is the same in both."""
    old, new = found.get(parameter), given.get(parameter)
    return str(new).removeprefix("%") if old == new and str(new).startswith("%") else parameter
