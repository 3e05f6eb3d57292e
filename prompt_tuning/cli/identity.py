"""Whether a run folder holds the run that is configured.

What each setting is to a run is said where the setting is defined (`settings.py`). A macro is what
the parameters are that it fills. Files that are named only by their path are compared by a hash of
their contents, so that they may lie elsewhere.
"""

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import prompt_tuning
from prompt_tuning.cli import gin_config, registry
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.training.run_folder import Comparison

_NOT_SET = "not set"


def settings() -> dict[str, str]:
    """Returns the macros and parameters of the loaded configuration that a result depends on."""
    free = _free_macros() | {name for name, macro in MACROS.items() if macro.assigned}
    return {
        name: text
        for name, text in gin_config.settings().items()
        if name not in free and not ("." in name and registry.mark(name).free)
    }


def _free_macros() -> set[str]:
    """Macros that fill parameters, and none but such as no result depends on."""
    fills: dict[str, list[bool]] = {}
    for parameter, (_, macros) in gin_config.resolved().items():
        for macro in macros:
            fills.setdefault(macro, []).append(registry.mark(parameter).free)
    return {macro for macro, free in fills.items() if all(free)}


def file_contents() -> dict[str, str]:
    """Returns short hashes of the files that settings name, and of the user's own modules."""
    found = {}
    for parameter, (text, _) in gin_config.resolved().items():
        if registry.mark(parameter).hashed:
            paths = [path for path in _paths(text) if path.exists()]
            if paths:
                found[f"contents of {parameter}"] = _hash(paths)
    for module, path in _user_modules():
        found[f"contents of the module {module}"] = _hash([path])
    return found


def _paths(text: str) -> list[Path]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return []
    values = [value] if isinstance(value, str) else value or []
    return [Path(each) for each in values if isinstance(each, str)]


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file():
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _user_modules() -> Iterator[tuple[str, Path]]:
    """Yields the modules that gin files import, but for this package's."""
    own = Path(prompt_tuning.__file__).parent
    for name in gin_config.imports(gin_config.text()):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and own not in Path(file).parents:
            yield name, Path(file)


def compare(found: Mapping[str, Any], given: Mapping[str, Any]) -> Comparison:
    """Compares what a run folder recorded with what is configured now.

    Returns:
      The differences that make it another run, and what is to be said of those that don't.
    """
    refused: dict[str, str] = {}
    notes: dict[str, str] = {}
    was, now = _by_parameter(found), _by_parameter(given)
    for parameter in sorted(was.keys() | now.keys()):
        mark = registry.mark(parameter)
        old, new = (each.get(parameter, _default(parameter)) for each in (was, now))
        if old == new or mark.free:
            continue
        name = _name(parameter, found, given)
        if mark.is_identity:
            refused[name] = f"{name} is {old} there, {new} now"
        elif mark.note:
            notes[name] = f"{name} is {new} now and was {old}: {mark.note}."
    for name in sorted(found.keys() & given.keys()):
        # The hashes of what no parameter says; an older version may have kept fewer.
        if " " in name and found[name] != given[name]:
            refused[name] = f"{name} is {found[name]} there, {given[name]} now"
    return Comparison(refused=tuple(refused.values()), notes=tuple(notes.values()))


def _by_parameter(recorded: Mapping[str, Any]) -> dict[str, str]:
    """The parameters that are recorded, macros put in."""
    texts = {name: str(text) for name, text in recorded.items() if " " not in name}
    return {name: text for name, (text, _) in gin_config.resolved(texts).items()}


def _default(parameter: str) -> str:
    default = registry.default_of(parameter)
    return _NOT_SET if default is inspect.Parameter.empty else repr(default)


def _name(parameter: str, found: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What a user calls a parameter: the macro that fills it, then and now."""
    old, new = found.get(parameter), given.get(parameter)
    return str(new).removeprefix("%") if old == new and str(new).startswith("%") else parameter
