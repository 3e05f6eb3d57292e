"""Lazily read arrays in files, and reading a model's parameters from them.

First, only a checkpoint's names, shapes and dtypes are read. Then its values are read a few
megabytes at a time, one parameter after another. In addition to the model in its final dtype, one
parameter is in memory; the largest are read first, while memory is mostly free. On CPU, a parameter
that a local file stores in the model's shape and dtype isn't read but memory-mapped: loading it
takes no time, its pages are read on first use, and processes that load the same file share them.

The readers of formats map arrays to parameters: weights.py, huggingface.py, t5x.py.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from etils import epath
from jax.sharding import Sharding

from prompt_tuning.errors import UserError, listed
from prompt_tuning.host_memory import return_freed_memory
from prompt_tuning.models.compute import DTYPES, Compute
from prompt_tuning.models.quantization import quantize_stored

BLOCK_BYTES = 16 * 2**20

ALIGNMENT = 64
"""In bytes; XLA uses an array without copying if its address is a multiple of this."""

Block = tuple[int, np.ndarray]
"""The index of the first row, and the rows."""

ShardingOf = Callable[[str, tuple[int, ...]], Sharding]
"""(a parameter's "/"-joined name, its shape) -> its sharding."""


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """An array in a checkpoint; `numpy.asarray` reads it.

    Attributes:
      shape: at least one axis; rows are along the first.
      dtype: of the stored values.
      blocks: returns an iterator over blocks of rows, in order; raises UserError for damage.
      mapped: returns the memory-mapped array; None if it can't be mapped.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: Callable[[], Iterator[Block]]
    mapped: Callable[[], np.ndarray] | None = None

    def copy_to(self, out: np.ndarray) -> None:
        """Reads the values into `out`, an array or view of this shape, cast to its dtype."""
        for start, rows in self.blocks():
            out[start : start + len(rows)] = rows

    def map_blocks(
        self, shape: tuple[int, ...], function: Callable[[int, np.ndarray], Block]
    ) -> "StoredArray":
        """Returns an array of this shape with `function` applied to each block."""
        return StoredArray(
            shape=shape,
            dtype=self.dtype,
            blocks=lambda: (function(start, rows) for start, rows in self.blocks()),
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("An array that is still in its file can't be read without a copy.")
        out = np.empty(self.shape, dtype or self.dtype)
        self.copy_to(out)
        return out


def array_in_memory(array: np.ndarray) -> StoredArray:
    """Returns a `StoredArray` for an array in memory."""
    return StoredArray(shape=array.shape, dtype=array.dtype, blocks=lambda: iter([(0, array)]))


def array_in_file(
    file: epath.Path, offset: int, shape: tuple[int, ...], dtype: np.dtype
) -> StoredArray:
    """Returns the row-major array that begins at byte `offset` of a file.

    It can be mapped if the file is local and the array is aligned. `blocks` reads the file instead
    of copying from mapped pages, which would be in memory twice.
    """

    def blocks() -> Iterator[Block]:
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        with reading(file), file.open("rb") as stream:
            stream.seek(offset)
            for start, stop in row_ranges(shape[0], row_bytes):
                data = stream.read((stop - start) * row_bytes)
                if len(data) != (stop - start) * row_bytes:
                    raise UserError(
                        f"{str(file)!r} ends in the middle of its weights; the file is "
                        "incomplete. Copy or download it again."
                    )
                yield start, np.frombuffer(data, dtype).reshape(-1, *shape[1:])

    def mapped() -> np.ndarray:
        with reading(file):
            # Copy-on-write: a write to the array, which JAX never does, wouldn't change the file.
            return np.memmap(file, dtype, mode="c", offset=offset, shape=shape)

    aligned = offset % ALIGNMENT == 0 and 0 not in shape and "://" not in str(file)
    return StoredArray(shape=shape, dtype=dtype, blocks=blocks, mapped=mapped if aligned else None)


@contextlib.contextmanager
def reading(path: epath.Path) -> Iterator[None]:
    """Reports a failure to read `path` in one line.

    Local files raise OSError; cloud libraries raise their own errors.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and "://" not in str(path):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"Can't read {str(path)!r}: {reason}.") from error


def row_ranges(rows: int, row_bytes: int, multiple: int = 1) -> Iterable[tuple[int, int]]:
    """Returns (start, stop) of blocks of about `BLOCK_BYTES` and a multiple of `multiple` rows.

    Returns no blocks if `row_bytes` is 0.
    """
    if not row_bytes:
        return []
    step = max(1, BLOCK_BYTES // row_bytes // multiple) * multiple
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


@dataclass(frozen=True, kw_only=True)
class StoredParameter:
    """A parameter of the model, backed by arrays in files.

    Attributes:
      shape: of the parameter.
      parts: stored arrays, each with a function: parameter -> the view of it that the array fills.
    """

    shape: tuple[int, ...]
    parts: Sequence[tuple[StoredArray, Callable[[np.ndarray], np.ndarray]]]

    def read(self, dtype: np.dtype) -> np.ndarray:
        """Reads the parameter in this dtype."""
        whole = np.empty(self.shape, dtype)
        for array, where in self.parts:
            array.copy_to(where(whole))
            return_freed_memory()
        return whole

    def mapped(self, dtype: np.dtype) -> np.ndarray | None:
        """Returns the memory-mapped parameter, or None if it must be read.

        It can be mapped if it is stored as one array of the same shape and dtype.
        """
        array, where = self.parts[0]
        whole = np.broadcast_to(np.empty((), dtype), self.shape)  # takes no memory
        if len(self.parts) > 1 or array.mapped is None or where(whole) is not whole:
            return None
        return array.mapped() if (array.shape, array.dtype) == (self.shape, dtype) else None


def check_parameters(
    found: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], *, source: str
) -> None:
    """Checks that `found` has these names and shapes, and floating-point values.

    Raises:
      UserError: it doesn't; lists missing, unexpected and misshapen arrays.
    """
    problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [f"{name} is unexpected" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        shape, dtype = tuple(found[name].shape), found[name].dtype
        if shape != expected[name]:
            problems.append(f"{name} has shape {shape}, expected {expected[name]}")
        elif not jnp.issubdtype(dtype, jnp.floating):
            problems.append(f"{name} has dtype {dtype}, expected floating-point numbers")
    if problems:
        raise UserError(
            f"The parameters in {source} don't match the model: {listed(problems, '; ')}."
        )


def dtype_of(parameters: Mapping[str, StoredParameter], dtype: str | None) -> str:
    """Returns `dtype`, or that of the stored embedding table if supported, or float32."""
    stored = str(parameters["token_embedder/embedding"].parts[0][0].dtype)
    return dtype or (stored if stored in DTYPES else "float32")


def read_parameters(
    parameters: Mapping[str, StoredParameter],
    dtype: str | None,
    sharding_of: ShardingOf | None = None,
    compute: Compute = Compute(),
) -> dict[str, jax.Array]:
    """Reads a checked model onto the devices, one parameter after another.

    Args:
      parameters: the model's, by "/"-joined name.
      dtype: of the result; if None, that of `dtype_of`.
      sharding_of: each parameter's sharding; devices, on any host, get only their shard. If None,
        everything is on the default device.
      compute: quantization options; each parameter is quantized before the next is read.
    """
    dtype = dtype_of(parameters, dtype)
    # Only on CPU: accelerators copy arrays to their own memory, and shards are copies.
    may_map = sharding_of is None and jax.default_backend() == "cpu"
    arrays = {}
    for name in sorted(parameters, key=lambda name: -np.prod(parameters[name].shape)):
        mapped = parameters[name].mapped(as_dtype(dtype)) if may_map else None
        # Keep no other reference to the array, or it stays in memory while the next one is read.
        parts = quantize_stored(
            name,
            parameters[name].read(as_dtype(dtype)) if mapped is None else mapped,
            compute,
        )
        del mapped
        for part in list(parts):
            arrays[part] = _place(parts.pop(part), part, sharding_of)
    return arrays


def as_dtype(name: str) -> np.dtype:
    """Returns the NumPy dtype of this name, including bfloat16."""
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _place(whole: np.ndarray, name: str, sharding_of: ShardingOf | None) -> jax.Array:
    if sharding_of is None:
        # On CPU, JAX uses this memory without copying; `jnp.asarray` may copy it twice.
        return jax.block_until_ready(jax.device_put(whole))
    sharding = sharding_of(name, whole.shape)
    shards = jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])
    return jax.block_until_ready(shards)
