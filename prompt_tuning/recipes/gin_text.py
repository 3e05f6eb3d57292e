"""Settings in gin's format, for `config.gin` and `settings.json` of run folders, without gin.

A setting is the value of a function's parameter, such as `data.batch_size`. Some have a macro for
users to set: `BATCH_SIZE = 32` and `data.batch_size = %BATCH_SIZE`.
"""

import ast
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prompt_tuning.recipes.paths import shipped_configs

_STRING_OR_MACRO = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|%([\w./]+)""")
_WIRING = ("runs/base.gin", "runs/train.gin", "tasks/user_files.gin")


def filled_by_macros(*files: Path) -> list[tuple[str, str]]:
    """Returns the parameters that gin files set to a macro, with the macro's name."""
    texts = [file.read_text("utf-8") for file in files]
    pattern = re.compile(r"^([\w.]+\.\w+) = .*?%(\w+)", re.MULTILINE)
    return [pair for text in texts for pair in pattern.findall(text)]


def macros_in(text: str) -> list[str]:
    """Returns the macros that a gin expression refers to; a `%` in a string is text."""
    return [name for name in _STRING_OR_MACRO.findall(text) if name]


@functools.cache
def macros() -> Mapping[str, str]:
    """Returns the macro of each parameter that has one in the gin files of training."""
    return dict(filled_by_macros(*(shipped_configs() / file for file in _WIRING)))


class Reference(str):
    """A gin expression, such as "@user_files()", which is written without quotes."""


def text_of(value: Any) -> str:
    """Returns a value formatted for gin."""
    return str(value) if isinstance(value, Reference) else repr(value)


def literal(text: str) -> Any:
    """Returns the value of a text, a `Reference` if it isn't a literal."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return Reference(text)


def with_macros(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the texts of settings by name, preceded by those of their macros."""
    named = {name: macro for name, macro in macros().items() if name in values}
    filled = {macro: text_of(values[name]) for name, macro in named.items()}
    texts = {
        name: f"%{named[name]}" if name in named else text_of(value)
        for name, value in values.items()
    }
    return {**dict(sorted(filled.items())), **dict(sorted(texts.items()))}


def resolved(given: Mapping[str, str]) -> dict[str, tuple[str, frozenset[str]]]:
    """Returns the text of each set parameter with macros resolved, and the macros' names.

    Args:
      given: gin-formatted texts by the names of macros and parameters.
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

        return _STRING_OR_MACRO.sub(put_in, text), names

    return {name: resolve(text) for name, text in given.items() if "." in name}
