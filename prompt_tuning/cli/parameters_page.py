"""Writes docs/parameters.md from the code: every gin parameter and every macro.

python -m prompt_tuning.cli.parameters_page docs/parameters.md
"""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning import cli
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.cli.parameter_meanings import MEANINGS

_HEAD = """# Parameters and macros

Made from the code by `make parameters`; don't edit it by hand.

Set any of them as `--gin.NAME=VALUE` on the command line, or as `NAME = VALUE` in a gin file. The
last one wins: first the gin files in their order, then the flags. `prompt-tuning COMMAND --help`
lists those that a command reads, and `config.gin` in a run folder holds what a run used.

Where "free" is yes, a setting may change when a run is resumed; all others are part of what the run
is, and another value is refused in its folder.

## Macros

Short names for what most runs set; the gin files in `configs/runs/` pass them to parameters.

| macro | type | meaning | free |
| --- | --- | --- | --- |
"""

_BEFORE_PARAMETERS = """
## Parameters

"(required)" has no default in the code: a gin file sets it. What the program gives a method or an
initializer, such as the frozen model, is left out.
"""


def page() -> str:
    """Returns the page's text."""
    free = _free()
    rows = [
        f"| `{name}` | {macro.expected} | {_cell(macro.meaning)} | {_yes(name in free)} |"
        for name, macro in sorted(MACROS.items())
    ]
    parts = [_HEAD + "\n".join(rows) + "\n", _BEFORE_PARAMETERS]
    for name, function in sorted(_functions().items()):
        settable = list(_settable(name, function))
        if not settable:
            continue
        parts.append(
            f"\n### {name}\n\n{_summary(function)}\n\n"
            "| parameter | type | default | meaning | free |\n| --- | --- | --- | --- | --- |\n"
        )
        parts += [
            f"| `{full}` | {_type(parameter.annotation)} | {_default(parameter.default)} "
            f"| {_cell(MEANINGS.get(full, ''))} | {_yes(full in free)} |\n"
            for full, parameter in settable
        ]
    return "".join(parts)


def without_meaning() -> list[str]:
    """Returns the parameters that `MEANINGS` lacks."""
    return [
        full
        for name, function in _functions().items()
        for full, _ in _settable(name, function)
        if full not in MEANINGS
    ]


def unknown_meanings() -> list[str]:
    """Returns the entries of `MEANINGS` that no parameter has."""
    there = {full for name, it in _functions().items() for full, _ in _settable(name, it)}
    return [full for full in MEANINGS if full not in there]


def _functions() -> dict[str, Any]:
    from prompt_tuning.cli import gin_config

    for module in pkgutil.iter_modules(cli.__path__):
        if module.name != "__main__":
            importlib.import_module(f"{cli.__name__}.{module.name}")
    return gin_config.registered_functions()


def _settable(name: str, function: Any) -> Iterator[tuple[str, inspect.Parameter]]:
    """Yields the parameters that gin sets; others the program gives."""
    for parameter in inspect.signature(function).parameters.values():
        if (name, parameter.name) not in _GIVEN and parameter.name != "base":
            yield f"{name}.{parameter.name}", parameter


_GIVEN = {("predict", "data"), ("new_model", "vocabulary"), ("frozen_model", "sharding_of")}


def _free() -> Sequence[str]:
    from prompt_tuning.cli import train

    return train.IRRELEVANT


def _summary(function: Any) -> str:
    text = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return re.sub(r"; see .*?(?=\.?$)", "", " ".join(text.split()))


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
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
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
