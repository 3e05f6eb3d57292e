"""Templates that format a row as text: "question: {question} context: {passage}".

A name in braces is a column, with any characters; "{{" and "}}" are literal braces.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prompt_tuning.errors import UserError

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Template:
    """A text with placeholders for columns.

    Args:
      text: the user's template.
      name: its name in messages, such as "input template".

    Raises:
      UserError: a brace is unpaired, or the template names no column.
    """

    text: str
    name: str

    def __post_init__(self):
        tokens = list(_TOKEN.finditer(self.text))
        if any(token[0] in ("{", "}", "{}") for token in tokens) or not self.columns:
            raise UserError(
                f"The {self.name} {self.text!r} is not a template: write {{column}} for at least "
                "one column of the file, and {{ or }} for a brace."
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, in order."""
        return tuple(token[1] for token in _TOKEN.finditer(self.text) if token[1])

    def render(self, row: Mapping[str, Any]) -> str:
        """Returns the text for a row, stripped; a null becomes an empty string.

        Raises:
          KeyError: the row lacks a column.
          ValueError: a value is neither text nor a number.
        """
        braces = {"{{": "{", "}}": "}"}
        filled = _TOKEN.sub(
            lambda token: braces.get(token[0]) or _as_text(token[1], row[token[1]]), self.text
        )
        return filled.strip()


def _as_text(column: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise ValueError(f"column {column!r} is {value!r}; expected text or a number")
    return str(value)
