"""Flax's msgpack files, array by array.

A file is nested maps with arrays as an extension type, which holds the shape, the name of the
dtype and the bytes (flax.serialization). Arrays are not read, only found: what `stored_msgpack`
returns in their place knows where their bytes are.
"""

import math
from collections.abc import Iterator
from typing import IO, Any

import msgpack
import numpy as np
from etils import epath

from prompt_tuning.checkpoints.stored_arrays import (
    Rows,
    StoredArray,
    array_in_file,
    as_dtype,
    reading,
)
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import MAX_DEPTH, shown

_NDARRAY = 1  # Flax's extension types
_NUMPY_SCALAR = 3
_CHUNKED = "__msgpack_chunked_array__"
_LONGEST_HEAD = 1024  # bytes; of an array's shape and dtype
_LONGEST_REASON = 200  # characters of a message
_MAPS = {*range(0x80, 0x90), 0xDE, 0xDF}
FIRST_BYTES = frozenset(_MAPS - {0x80})
"""What a checkpoint begins with, a map with something in it; 0x80 would be a pickle."""
# First bytes of an extension, and how many bytes stand before its content; the last is its type.
_EXTENSIONS = {0xC7: 3, 0xC8: 4, 0xC9: 6} | dict.fromkeys(range(0xD4, 0xD9), 2)

# First bytes of a piece of binary data, and how many bytes tell its length.
_BINARIES = {0xC4: 1, 0xC5: 2, 0xC6: 4}


def stored_msgpack(path: epath.Path) -> dict[str, Any]:
    """Returns the nested maps of a file, with a `StoredArray` for each array.

    Raises:
      UserError: it can't be read, or isn't a whole msgpack file with a map in it.
    """
    with reading(path), path.open("rb") as stream, path.open("rb") as peeking:
        # The size of the buffer is bounded by the largest array, which is passed over in it.
        unpacker = msgpack.Unpacker(stream, max_buffer_size=0, strict_map_key=False)
        try:
            content = _value(unpacker, peeking, path)
            if peeking.seek(0, 2) != unpacker.tell():
                raise ValueError("there are more bytes after its end")
        except (
            ValueError,
            TypeError,
            LookupError,
            RecursionError,
            msgpack.UnpackException,
        ) as error:
            raise UserError(
                f"{str(path)!r} isn't a T5X checkpoint: it isn't a whole msgpack file "
                f"({_told(error)})."
            ) from error
    return content if isinstance(content, dict) else {}


def _told(error: Exception) -> str:
    if isinstance(error, RecursionError | msgpack.StackError):
        return "it is nested too deeply"
    return " ".join(str(error).split())[:_LONGEST_REASON] or "it ends too early"


def _value(unpacker: msgpack.Unpacker, peeking: IO[bytes], path: epath.Path, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    start = unpacker.tell()
    peeking.seek(start)
    head = peeking.read(_LONGEST_HEAD)
    if head[:1] and head[0] in _MAPS:
        node = {}
        for _ in range(unpacker.read_map_header()):
            key = str(unpacker.unpack())
            node[key] = _value(unpacker, peeking, path, depth + 1)
        return _join_chunks(node) if _CHUNKED in node else node
    if head[:1] and head[0] in _EXTENSIONS:
        unpacker.skip()
        return _array(head, unpacker.tell(), path)
    return unpacker.unpack()


def _array(head: bytes, end: int, path: epath.Path) -> StoredArray:
    """The array of an extension that ends at byte `end` of the file, and begins with `head`."""
    skipped = _EXTENSIONS[head[0]]
    code = head[skipped - 1]
    if code not in (_NDARRAY, _NUMPY_SCALAR):
        raise ValueError(f"unknown extension {code}")
    content = msgpack.Unpacker()
    content.feed(head[skipped:])
    content.read_array_header()
    shape, name = _shape(content.unpack()), content.unpack()
    dtype = as_dtype(name) if isinstance(name, str) else None
    if dtype is None or not (dtype.kind in "biufc" or name == "bfloat16"):
        raise ValueError(f"an array holds {shown(name)}, which are no numbers")
    size = dtype.itemsize * math.prod(shape)
    start = skipped + content.tell()
    width = _BINARIES.get(head[start], 0)
    stored = int.from_bytes(head[start + 1 : start + 1 + width], "big")
    if stored != size:
        raise ValueError(
            f"an array of shape {shown(list(shape))} has {stored} bytes in place of {size}"
        )
    return array_in_file(path, end - size, shape or (1,), dtype)


def _shape(lengths: Any) -> tuple[int, ...]:
    if not isinstance(lengths, list) or any(type(n) is not int or n < 0 for n in lengths):
        raise ValueError(f"an array's shape is {shown(lengths)}")
    return tuple(lengths)


def _join_chunks(node: dict[str, Any]) -> StoredArray:
    """Joins an array that Flax cut up because msgpack holds at most 4 GiB in one piece."""
    axes, chunks = node["shape"], node["chunks"]
    shape = _shape([axes[str(axis)] for axis in range(len(axes))])
    pieces = [chunks[str(number)] for number in range(len(chunks))]
    if not all(isinstance(piece, StoredArray) for piece in pieces):
        raise ValueError("an array's pieces are no arrays")
    if sum(math.prod(piece.shape) for piece in pieces) != math.prod(shape):
        raise ValueError(f"the pieces of an array of shape {shown(list(shape))} don't fill it")

    def blocks() -> Iterator[Rows]:
        # The cuts are anywhere in the array's values, so it is put together first.
        flat = np.concatenate([np.asarray(piece).reshape(-1) for piece in pieces])
        yield 0, flat.reshape(shape)

    return StoredArray(shape=shape, dtype=pieces[0].dtype, blocks=blocks)
