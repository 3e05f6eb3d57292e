"""Writes plain values as YAML, for the engines that take it.

Texts are written as JSON writes them, which is YAML too, so nothing in them can be taken for
anything else; scripts as blocks, which people can read.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def yaml_text(value: Mapping[str, Any] | Sequence[Any], indent: int = 0) -> str:
    """Returns mappings, sequences, texts, numbers and booleans as YAML, leaving out None."""
    margin = "  " * indent
    if isinstance(value, Mapping):
        return "".join(
            f"{margin}{_key(key)}:{_item(item, indent)}"
            for key, item in value.items()
            if item is not None
        )
    return "".join(f"{margin}-{_item(item, indent)}" for item in value)


def _item(item: Any, indent: int) -> str:
    if isinstance(item, str):
        return _block(item, indent + 1) if _may_be_block(item) else f" {json.dumps(item)}\n"
    if isinstance(item, Mapping | Sequence):
        empty = " {}\n" if isinstance(item, Mapping) else " []\n"
        return "\n" + yaml_text(item, indent + 1) if item else empty
    return f" {json.dumps(item)}\n"


def _may_be_block(text: str) -> bool:
    """A block keeps its lines as they are, if the first tells the margin and the end is plain."""
    lines = text.split("\n")
    whole = len(lines) > 1 and lines[-1] == "" and lines[-2] != "" and lines[0][:1].strip() != ""
    return whole and all(line.isprintable() for line in lines)


def _block(text: str, indent: int) -> str:
    margin = "  " * indent
    return " |\n" + "".join(f"{margin}{line}\n" if line else "\n" for line in text.splitlines())


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() else json.dumps(key)
