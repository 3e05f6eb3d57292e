"""Flax's msgpack files: nested maps with arrays, read into memory."""

from typing import Any

import numpy as np
from etils import epath
from flax import serialization

from prompt_tuning.checkpoints.arrays.stored_arrays import array_in_memory, reading
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown

FIRST_BYTES = frozenset({*range(0x81, 0x90), 0xDE, 0xDF})
"""Possible first bytes of a checkpoint: a non-empty map. 0x80 would be a pickle."""


def stored_msgpack(path: epath.Path) -> dict[str, Any]:
    """Returns the nested maps of a file, with a `StoredArray` for each array.

    Raises:
      UserError: it can't be read, or isn't a complete msgpack file.
    """
    with reading(path):
        data = path.read_bytes()
    try:
        content = serialization.msgpack_restore(data)
    except Exception as error:  # msgpack and NumPy raise many types for damaged bytes
        raise UserError(
            f"{str(path)!r} isn't a T5X checkpoint: it isn't a complete msgpack file "
            f"({shown(str(error) or type(error).__name__)})."
        ) from error
    return _stored(content) if isinstance(content, dict) else {}


def _stored(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _stored(value) for key, value in node.items()}
    if isinstance(node, np.ndarray | np.generic):
        return array_in_memory(np.atleast_1d(node))
    return node
