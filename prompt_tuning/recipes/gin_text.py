"""Settings as gin writes them: `config.gin` and `settings.json` of a run folder, without gin.

A setting is a value under the name of a function's parameter, `data.batch_size`. A few have a
macro, which is what a user sets: `BATCH_SIZE = 32` and `data.batch_size = %BATCH_SIZE`.
"""

import ast
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_tuning.recipes.paths import shipped_configs

_WIRING = ("runs/base.gin", "runs/train.gin", "tasks/user_files.gin")


def filled_by_macros(*files: Path) -> list[tuple[str, str]]:
    """Returns the parameters that gin files fill by a macro, each with the macro's name."""
    texts = [file.read_text("utf-8") for file in files]
    pattern = re.compile(r"^([\w.]+\.\w+) = .*?%(\w+)", re.MULTILINE)
    return [pair for text in texts for pair in pattern.findall(text)]


@functools.cache
def macros() -> Mapping[str, str]:
    """Returns the macro of each parameter that has one in the gin files of training."""
    return dict(filled_by_macros(*(shipped_configs() / file for file in _WIRING)))


class Reference(str):
    """What gin is to call, such as "@user_files()"; it is written without quotes."""


def text_of(value: Any) -> str:
    """Returns a value as gin writes it."""
    return str(value) if isinstance(value, Reference) else repr(value)


def literal(text: str) -> Any:
    """Returns the value of a text; what isn't a literal is a `Reference`."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return Reference(text)


def with_macros(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the texts of settings by name, those of their macros first."""
    named = {name: macro for name, macro in macros().items() if name in values}
    filled = {macro: text_of(values[name]) for name, macro in named.items()}
    texts = {
        name: f"%{named[name]}" if name in named else text_of(value)
        for name, value in values.items()
    }
    return {**dict(sorted(filled.items())), **dict(sorted(texts.items()))}


def resolved(given: Mapping[str, str]) -> dict[str, tuple[str, frozenset[str]]]:
    """Returns each parameter that is set: its text with macros resolved, and which those are.

    Args:
      given: texts by the names of macros and parameters, as gin writes them.
    """

    def resolve(text: str) -> tuple[str, frozenset[str]]:
        names: frozenset[str] = frozenset()

        def put_in(found: re.Match[str]) -> str:
            nonlocal names
            if found[1] not in given:
                return found[0]
            inner, more = resolve(given[found[1]])
            names |= {found[1]} | more
            return inner

        return re.sub(r"%([\w./]+)", put_in, text), names

    return {name: resolve(text) for name, text in given.items() if "." in name}
