"""Reads T5X checkpoints: the format in which the paper's frozen models were published.

A checkpoint is one of

- a msgpack index, `checkpoint`, with small arrays inline and large ones in zarr folders next to it,
- a single msgpack file, as written by older versions of Flax,
- Orbax's layout, which T5X writes today: `_METADATA` lists the arrays, which are zarr folders or
  stored in an OCDBT database; the folder may be a step's `state`.

Arrays are read through TensorStore, which also reads buckets. layouts.py describes their names.
"""

import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorstore
from etils import epath

from prompt_tuning.checkpoints.arrays.msgpack_files import stored_msgpack
from prompt_tuning.checkpoints.arrays.stored_arrays import (
    Block,
    StoredArray,
    StoredParameter,
    check_parameters,
    reading,
    row_ranges,
)
from prompt_tuning.checkpoints.frozen.layouts import (
    canonical,
    check_size,
    expected_shapes,
    infer_config,
    parameters_from_layers,
)
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import parse_json, shown
from prompt_tuning.models.parameters import ModelConfig

INDEX_FILE = "checkpoint"
ORBAX_FILE = "_METADATA"
_ITEMS = ("state", "default")  # T5X's and Orbax's names of a step's single item
_DATABASE = "manifest.ocdbt"
_PLACEHOLDER = "PLACEHOLDER://"  # an array in the index of older versions of Orbax
# Arrays are read sequentially, so further threads would only use more memory, a chunk each.
_ONE_THREAD = tensorstore.Context(
    {"data_copy_concurrency": {"limit": 1}, "file_io_concurrency": {"limit": 1}}
)
# Prefixes of the model's parameters, as opposed to the optimizer's state.
_MODELS = ("optimizer/target/", "target/", "params/params/", "params/", "")
OF_METHODS = ("encoder/prompt/", "method/")
"""Prefixes of a method's parameters among them: a prompt of the paper's code, or of
`prompt_tuning.contrib.t5x`, and the parameters of other methods of the latter."""


def stored_t5x(
    path: str | epath.PathLike, config: ModelConfig | None = None, *, name: str | None = None
) -> tuple[ModelConfig, dict[str, StoredParameter]]:
    """Returns the config and the parameters of a checkpoint, without reading their values.

    Those of a method that T5X trained are left out.

    Args:
      path: the `checkpoint_<step>` folder, or a single msgpack file.
      config: the model's shape. If None, it is inferred from the parameters, except for
        `relative_attention_max_distance`, which is T5's 128.
      name: the model's name, unless its size is published; if None, the last part of `path`.

    Raises:
      UserError: it isn't a T5X checkpoint, or has another size than the config; parameters are
        missing, unexpected or have another shape (all listed).
    """
    path = epath.Path(path)
    source = repr(str(path))
    found = variables(path)
    found = {name: array for name, array in found.items() if not name.startswith(OF_METHODS)}
    arrays = canonical(found, source=source)
    inferred = infer_config(arrays, name=name or path.name, source=source)
    if config is not None:
        check_size(inferred, config, source=source)
    config = config or inferred
    check_parameters(arrays, expected_shapes(config, arrays), source=source)
    return config, parameters_from_layers(arrays, config)


def item_folder(path: str | epath.PathLike) -> epath.Path | None:
    """Returns the folder with the index of a T5X or Orbax checkpoint: `path`, or its item."""
    path = epath.Path(path)
    for folder in (path, *(path / item for item in _ITEMS)):
        if any((folder / name).exists() for name in (ORBAX_FILE, INDEX_FILE)):
            return folder
    return None


def variables(path: str | epath.PathLike) -> dict[str, StoredArray]:
    """Returns a checkpoint's variables by "/"-joined name, without reading their values.

    Only those of the model, without the optimizer's state: `encoder/prompt/prompt/prompt` is
    `target/encoder/prompt/prompt/prompt` in a T5X checkpoint.

    Raises:
      UserError: it isn't a checkpoint in one of T5X's layouts.
    """
    path = epath.Path(path)
    folder = item_folder(path)
    if folder is not None and (folder / ORBAX_FILE).exists():
        return _open_all(*_orbax_entries(folder))
    index = path if folder is None else folder / INDEX_FILE
    return _open_all(*_msgpack_entries(index))


def _msgpack_entries(index: epath.Path) -> tuple[dict[str, Any], epath.Path]:
    content = stored_msgpack(index)
    entries = dict(_flat(content))
    if not any(name.startswith(("optimizer/target/", "target/")) for name in entries):
        raise UserError(f"{str(index)!r} isn't a T5X checkpoint: it has no optimizer/target.")
    return _of_the_model(entries), index.parent


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a msgpack index: arrays, and references to arrays in other files."""
    if isinstance(node, dict) and "kvstore" not in node:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}/{key}" if prefix else str(key))
    else:
        yield prefix, node


def _orbax_entries(folder: epath.Path) -> tuple[dict[str, Any], epath.Path]:
    index = folder / ORBAX_FILE
    try:
        with reading(index):
            content = parse_json(index.read_bytes())
        driver = "zarr3" if content.get("use_zarr3") else "zarr"
        entries = {}
        for leaf in content["tree_metadata"].values():
            keys = [str(part["key"]) for part in leaf["key_metadata"]]
            if leaf["value_metadata"]["value_type"] not in ("None", "Dict", "List"):
                entries["/".join(keys)] = {"driver": driver, "kvstore": {"path": ".".join(keys)}}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{str(index)!r} can't be read as Orbax's list of arrays ({type(error).__name__}: "
            f"{shown(str(error))})."
        ) from error
    return _of_the_model(entries), folder


def _of_the_model(entries: Mapping[str, Any]) -> dict[str, Any]:
    for prefix in _MODELS:
        found = {
            name.removeprefix(prefix): entry
            for name, entry in entries.items()
            if name.startswith(prefix)
        }
        if found:
            return found
    return {}


def _open_all(entries: Mapping[str, Any], folder: epath.Path) -> dict[str, StoredArray]:
    """Opens all arrays in zarr folders or a database concurrently."""
    database = (folder / _DATABASE).exists()
    arrays, opening = {}, {}
    for name, entry in entries.items():
        if isinstance(entry, str) and entry.startswith(_PLACEHOLDER):
            entry = {"driver": "zarr", "kvstore": {"path": entry.removeprefix(_PLACEHOLDER)}}
        if isinstance(entry, StoredArray):
            arrays[name] = entry
        elif isinstance(entry, Mapping):
            spec = _spec(entry, folder, name, database)
            try:
                opening[name] = tensorstore.open(spec, open=True, context=_ONE_THREAD)
            except ValueError as error:  # an invalid name
                raise _unreadable(name, folder, error) from error
        else:
            raise UserError(f"{shown(name)} in the T5X checkpoint {str(folder)!r} isn't an array.")
    for name, store in opening.items():
        try:
            arrays[name] = _stored(store.result(), name, folder)
        except (ValueError, OSError) as error:
            raise _unreadable(name, folder, error) from error
    return arrays


def _spec(
    entry: Mapping[str, Any], folder: epath.Path, name: str, database: bool
) -> dict[str, Any]:
    """Returns TensorStore's spec of an array; only its relative path comes from the index.

    Raises:
      UserError: the path is outside the checkpoint.
    """
    kvstore = entry["kvstore"]
    path = kvstore.get("path") if isinstance(kvstore, Mapping) else None
    inside = path.strip("/") if isinstance(path, str) else ""
    if not inside or ".." in PurePosixPath(inside).parts or str(path).startswith("/"):
        raise UserError(
            f"The checkpoint {str(folder)!r} says that {shown(name)} is in {shown(kvstore)}, "
            "which is outside its folder; such files aren't read."
        )
    if database:
        store: Any = {"driver": "ocdbt", "base": _kvstore(folder), "path": inside}
    else:
        store = _kvstore(folder, inside)
    driver = entry.get("driver") if entry.get("driver") in ("zarr", "zarr3") else "zarr"
    # By default, a missing file would read as zeros.
    return {"driver": driver, "kvstore": store, "fill_missing_data_reads": False}


def _kvstore(folder: epath.Path, inside: str = "") -> Any:
    """Returns TensorStore's spec of a folder, or of a folder inside it.

    The inner path comes from a file. A URL would decode it, "%2e%2e" to "..", so it is passed as a
    path, or encoded first.
    """
    end = f"{inside}/" if inside else ""
    if "://" in str(folder):
        return f"{folder}/{urllib.parse.quote(end)}"
    return {"driver": "file", "path": f"{folder.absolute()}/{end}"}


def _stored(store: tensorstore.TensorStore, name: str, folder: epath.Path) -> StoredArray:
    shape = tuple(store.shape)
    dtype = np.dtype(store.dtype.numpy_dtype)
    chunk_rows = int((store.chunk_layout.read_chunk.shape or (1,))[0] or 1)
    row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))

    def blocks() -> Iterator[Block]:
        try:
            if not shape:
                yield 0, np.asarray(store.read().result()).reshape(1)
                return
            # Whole chunks, so that each is read and decompressed only once.
            for start, stop in row_ranges(shape[0], row_bytes, multiple=chunk_rows):
                yield start, store[start:stop].read().result()
        except (ValueError, OSError) as error:
            raise _unreadable(name, folder, error) from error

    return StoredArray(shape=shape or (1,), dtype=dtype, blocks=blocks)


def _unreadable(name: str, folder: epath.Path, error: Exception) -> UserError:
    # TensorStore appends the array's entire spec.
    reason = re.sub(r"^[A-Z_]+: | ?\[(tensorstore_spec|source locations)=.*", "", str(error))
    reason = " ".join(reason.split()).rstrip(". ")
    return UserError(
        f"Can't read {name} of the checkpoint {str(folder)!r}: {reason}. It may be incomplete; "
        "copy it again."
    )
