"""Writes parameters.md, beside this file, from the code: every gin parameter and every macro."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prompt_tuning import cli
from prompt_tuning.cli import registry
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.cli.parameter_meanings import MEANINGS
from prompt_tuning.recipes.gin_text import filled_by_macros
from prompt_tuning.recipes.paths import shipped_configs
from prompt_tuning.recipes.signatures import PARAMETERS, mark
from prompt_tuning.settings import unmarked

_HEAD = """# Parameters and macros

Generated from the code by `make parameters`; don't edit it by hand.

Set any of them as `--gin.NAME=VALUE` on the command line, or as `NAME = VALUE` in a gin file. Later
settings override earlier ones: the gin files in order, then the flags.
`prompt-tuning COMMAND --help` lists those that a command reads, and `config.gin` in a run folder
records those of a run.

If "may change" is yes, a run may resume with another value. All other settings are part of a run's
identity: another value in the same folder is an error. Your files are compared by contents.

## Macros

Macros are short names for common settings; the files in `configs/runs/` pass them to parameters.

| macro | type | meaning | may change |
| --- | --- | --- | --- |
"""

_BEFORE_PARAMETERS = """
## Parameters

A "(required)" parameter has no default in the code; a gin file sets it. Arguments that the program
passes to a method or an initializer, such as the frozen model, are left out.
"""


def page() -> str:
    """Returns the page's text."""
    functions = _functions()
    changeable = _changeable_macros()
    rows = [
        f"| `{name}` | {macro.expected} | {_cell(macro.meaning)} | {_yes(name in changeable)} |"
        for name, macro in sorted(MACROS.items())
    ]
    parts = [_HEAD + "\n".join(rows) + "\n", _BEFORE_PARAMETERS]
    for name, function in sorted(functions.items()):
        settable = list(_settable(name))
        if not settable:
            continue
        parts.append(
            f"\n### {name}\n\n{_summary(function)}\n\n"
            "| parameter | type | default | meaning | may change |\n"
            "| --- | --- | --- | --- | --- |\n"
        )
        parts += [
            f"| `{full}` | {_type(parameter.annotation)} | {_default(parameter.default)} "
            f"| {_cell(MEANINGS.get(full, ''))} | {_yes(not mark(full).is_identity)} |\n"
            for full, parameter in settable
        ]
    return "".join(parts)


def without_meaning() -> list[str]:
    """Returns the parameters that `MEANINGS` lacks."""
    return [full for name in _functions() for full, _ in _settable(name) if full not in MEANINGS]


def unknown_meanings() -> list[str]:
    """Returns the entries of `MEANINGS` that no parameter has."""
    there = {full for name in _functions() for full, _ in _settable(name)}
    return [full for full in MEANINGS if full not in there]


def _functions() -> dict[str, Any]:
    for module in pkgutil.iter_modules(cli.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{cli.__name__}.{module.name}")
    # A user's own aren't on the page.
    return {
        name: function
        for name, function in registry.FUNCTIONS.items()
        if function.__module__.startswith("prompt_tuning.")
    }


def _settable(name: str) -> Iterator[tuple[str, inspect.Parameter]]:
    """Yields the parameters that gin sets; others the program gives."""
    for parameter in PARAMETERS[name].values():
        if (name, parameter.name) not in _GIVEN and parameter.name != "base":
            yield f"{name}.{parameter.name}", parameter


_GIVEN = {("predict", "data"), ("new_model", "vocabulary"), ("frozen_model", "sharding_of")}


def _changeable_macros() -> set[str]:
    """Returns the macros that shipped gin files put into what may change, and nowhere else."""
    filled = filled_by_macros(*shipped_configs().rglob("*.gin"))
    fixed = {macro for name, macro in filled if mark(name).is_identity}
    return {macro for _, macro in filled} - fixed


def _summary(function: Any) -> str:
    text = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return re.sub(r"; see .*?(?=\.?$)", "", " ".join(text.split()))


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    annotation = unmarked(annotation)
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)
    if "Callable" in text or "Make" in text or "Schedule" in text or "Transformation" in text:
        return "reference `@...`"
    return f"`{_cell(text)}`"


def _default(default: Any) -> str:
    return "(required)" if default is inspect.Parameter.empty else f"`{_cell(repr(default))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _yes(truth: bool) -> str:
    return "yes" if truth else ""


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
