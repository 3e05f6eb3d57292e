"""Parses external JSON, and formats its values for messages."""

import json
import reprlib
from collections.abc import Sequence
from typing import Any

from prompt_tuning.errors import listed

MAX_DEPTH = 100
"""Maximum nesting of objects and lists; files that this project reads have at most six."""

_SHORTENED = reprlib.Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 120  # characters; enough for a parameter's name


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
      ValueError: it isn't JSON, isn't UTF-8, or is nested too deeply for Python's parser.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested more deeply than Python can read") from None


def shown(value: Any) -> str:
    """Formats a value for a message: on one line, shortened if long."""
    return _SHORTENED.repr(value)


def shown_names(names: Sequence[str]) -> str:
    """Formats names for a message, without quotes; of many, the first ten and the number left."""
    return listed([shown(name)[1:-1] for name in names])
