"""Safetensors files, array by array: https://huggingface.co/docs/safetensors, "Format".

A file is eight bytes with the length of a JSON header, the header with each array's dtype, shape
and offsets after the header, and the arrays' bytes. The `safetensors` package maps an entire file
or builds it in memory. Here, at most one block is in memory, buckets can be read, and output is
deterministic (the package's order of metadata varies).
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from prompt_tuning.checkpoints.arrays.stored_arrays import (
    ALIGNMENT,
    StoredArray,
    array_in_file,
    reading,
)
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path, atomic_write
from prompt_tuning.json_text import parse_json, shown, shown_names

_METADATA = "__metadata__"
_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
    "I32": np.dtype(np.int32),
    "U32": np.dtype(np.uint32),
    "I16": np.dtype(np.int16),
    "U16": np.dtype(np.uint16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
FIX = "Give the weights a folder that exists, is writable and has free space."


def stored_safetensors(path: Any) -> tuple[dict[str, StoredArray], dict[str, str]]:
    """Returns the arrays and the metadata of a safetensors file; only its header is read.

    Raises:
      UserError: the file can't be read, or its header is damaged or doesn't match its size.
    """
    path = epath.Path(path)
    with reading(path), path.open("rb") as stream:
        size = path.stat().length
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise _damaged(path, "its first eight bytes aren't the length of a header")
        header = stream.read(length)
    try:
        entries = parse_json(header)
        metadata = {str(key): str(value) for key, value in entries.pop(_METADATA, {}).items()}
        return {
            name: _stored(path, name, entry, 8 + length, size) for name, entry in entries.items()
        }, metadata
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise _damaged(path, f"its header can't be read ({error})") from error


def _stored(path: epath.Path, name: str, entry: Any, data: int, size: int) -> StoredArray:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if entry["dtype"] not in _DTYPES:
        raise UserError(
            f"{shown_names([name])} in {str(path)!r} is of type {shown(entry['dtype'])}; expected "
            f"floating-point numbers ({', '.join(list(_DTYPES)[:4])})."
        )
    dtype = _DTYPES[entry["dtype"]]
    if begin < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        described = f"{shown_names([name])} of shape {shown(shape)}"
        raise _damaged(path, f"{described} doesn't fit the {shown(end - begin)} bytes it has")
    if data + end > size:
        raise _damaged(path, f"it ends in the middle of {shown_names([name])}")
    return array_in_file(path, data + begin, shape or (1,), dtype)


def _damaged(path: epath.Path, what: str) -> UserError:
    return UserError(
        f"Can't read weights from {str(path)!r}: it isn't a complete safetensors file: {what}."
    )


def write_safetensors(
    path: str | FilePath,
    arrays: Iterable[tuple[str, np.ndarray]],
    shapes: Mapping[str, tuple[int, ...]],
    dtypes: Mapping[str, np.dtype],
    metadata: Mapping[str, str],
    *,
    fix: str = FIX,
) -> None:
    """Writes a safetensors file, one array at a time.

    Args:
      path: the file, written atomically.
      arrays: names and values, in the order of `shapes`.
      shapes: of every array.
      dtypes: of every array.
      metadata: strings, written in the order of their names.
      fix: a hint in the error message if the file can't be written.

    Raises:
      UserError: it can't be written.
    """
    entries: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))}
    offset = 0
    for name, shape in shapes.items():
        end = offset + math.prod(shape) * dtypes[name].itemsize
        entries[name] = {
            "dtype": _NAMES[dtypes[name]],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    # Align the data, so that arrays can be memory-mapped; a T5's sizes keep them all aligned.
    header += b" " * (-(8 + len(header)) % ALIGNMENT)
    with atomic_write(as_path(path), fix=fix) as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for (name, value), expected in zip(arrays, shapes, strict=True):
            if name != expected:
                raise ValueError(f"{name} comes where {expected} was announced.")
            # The format is row-major, but an array from a device may have other strides.
            file.write(np.ascontiguousarray(value, dtypes[name]).view(np.uint8).reshape(-1).data)


def write_arrays(
    path: FilePath, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str], *, fix: str
) -> None:
    """Writes arrays in memory, in any order, to a safetensors file.

    Raises:
      UserError: it can't be written.
    """
    # The widest dtypes first, so that each array is aligned to its dtype.
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    write_safetensors(
        path,
        ordered,
        {name: array.shape for name, array in ordered},
        {name: array.dtype for name, array in ordered},
        metadata,
        fix=fix,
    )
