"""JSON that others wrote, read so that whatever is wrong with it is a ValueError.

Python's own parser stops at deep nesting with a RecursionError, or lets through what a later step,
which is itself further down the stack, then stops at.
"""

import json
import reprlib
from collections.abc import Sequence
from typing import Any

from prompt_tuning.errors import listed

MAX_DEPTH = 100
"""Objects and lists inside one another; what this project reads has six at most."""

_SHORTENED = reprlib.Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 120  # characters; enough for a parameter's name


def parse_json(text: str | bytes) -> Any:
    """Returns what `text` says.

    Raises:
      ValueError: it isn't JSON, not in UTF-8, or nested more than `MAX_DEPTH` deep.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    nodes = [value]
    for _ in range(MAX_DEPTH):
        nodes = [child for node in nodes for child in _children(node)]
        if not nodes:
            return value
    raise _too_deep()


def shown(value: Any) -> str:
    """Returns a value for a message: on one line, and cut short where it is long."""
    return _SHORTENED.repr(value)


def shown_names(names: Sequence[str]) -> str:
    """Returns names for a message, without quotes; of many the first ten and how many more."""
    return listed([shown(name)[1:-1] for name in names])


def _children(node: Any) -> list[Any]:
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [child for child in children if isinstance(child, dict | list)]


def _too_deep() -> ValueError:
    return ValueError(f"it is nested more than {MAX_DEPTH} deep")
