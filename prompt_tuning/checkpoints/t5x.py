"""Reads T5X checkpoints: the format in which the paper's frozen models were published.

A checkpoint is a msgpack index, `checkpoint`, with small arrays inline and large ones beside it in
zarr folders (read through TensorStore), or the one msgpack file that Flax wrote before. Layers
are separate there, `encoder/layers_3/attention/query/kernel`, and heads folded into one axis,
[embed, heads * head_dim]. The names and shapes of that layout also serve huggingface.py.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import tensorstore

from prompt_tuning.checkpoints.weights import (
    as_params,
    check_parameters,
    stacked_shapes,
)
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import MODELS, T5Config
from prompt_tuning.models.t5 import Params

INDEX_FILE = "checkpoint"
_NDARRAY = 1  # Flax's msgpack extension codes
_NUMPY_SCALAR = 3
_STACK = re.compile(r"(encoder|decoder)/layers/")
_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/")


def load_t5x(
    path: str | Path, config: T5Config | None = None, dtype: str | None = None
) -> tuple[T5Config, Params]:
    """Returns the config and the weights of a T5X checkpoint; its optimiser state is left alone.

    Args:
      path: the `checkpoint_<step>` folder, or a single msgpack file.
      config: the model's shape. If None it is read off the parameters, which don't tell
        `relative_attention_max_distance`: T5's 128 is taken.
      dtype: cast the weights to it; as they were saved if None.

    Raises:
      UserError: not a T5X checkpoint; parameters missing, extra or misshapen (all listed).
    """
    path = Path(path)
    arrays = _read_arrays(path)
    config = config or infer_config(arrays, name=path.name, source=repr(str(path)))
    check_parameters(arrays, layer_shapes(config), source=repr(str(path)))
    return stack_layers(arrays, config, dtype)


def layer_shapes(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Returns T5X's names of the parameters, one a layer, with T5X's shapes."""
    layers = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    shapes = {}
    for name, shape in stacked_shapes(config).items():
        if match := _STACK.match(name):
            stack = match.group(1)
            for layer in range(layers[stack]):
                one = name.replace("/layers/", f"/layers_{layer}/")
                shapes[one] = _fold_heads(name, shape[1:])
        else:
            shapes[name] = shape
    return shapes


def stack_layers(
    arrays: Mapping[str, np.ndarray], config: T5Config, dtype: str | None
) -> tuple[T5Config, Params]:
    """Returns arrays that have the names and shapes of `layer_shapes` as the model's tree."""
    layers = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    flat = {}
    for name, shape in stacked_shapes(config).items():
        if match := _STACK.match(name):
            names = [
                name.replace("/layers/", f"/layers_{layer}/")
                for layer in range(layers[match.group(1)])
            ]
            flat[name] = np.stack([arrays[one] for one in names]).reshape(shape)
        else:
            flat[name] = arrays[name]
    return as_params(flat, config, dtype)


def infer_config(arrays: Mapping[str, np.ndarray], *, name: str, source: str) -> T5Config:
    """Returns the config whose parameters have the shapes of `arrays`, in T5X's layout.

    It gets the name of the published size it equals, or else `name`.

    Raises:
      UserError: the parameters that tell the size aren't there.
    """

    def shape(parameter: str, axes: int) -> tuple[int, ...]:
        found = arrays[parameter].shape if parameter in arrays else None
        if found is None or len(found) != axes:
            raise UserError(
                f"{source} doesn't hold a T5: {parameter} "
                + ("is missing." if found is None else f"has shape {found}, expected {axes} axes.")
            )
        return found

    def layers(stack: str) -> int:
        numbers = [int(m.group(2)) for m in map(_LAYER.match, arrays) if m and m.group(1) == stack]
        return max(numbers, default=-1) + 1

    vocab_size, embed_dim = shape("token_embedder/embedding", 2)
    num_heads, num_buckets = shape("encoder/relpos_bias/rel_embedding", 2)
    gated = "encoder/layers_0/mlp/wi_0/kernel" in arrays
    wide = "encoder/layers_0/mlp/wi_0/kernel" if gated else "encoder/layers_0/mlp/wi/kernel"
    config = T5Config(
        name=name,
        vocab_size=vocab_size,
        embed_dim=embed_dim,
        num_heads=num_heads,
        head_dim=shape("encoder/layers_0/attention/query/kernel", 2)[1] // num_heads,
        mlp_dim=shape(wide, 2)[1],
        num_encoder_layers=layers("encoder"),
        num_decoder_layers=layers("decoder"),
        gated_mlp=gated,
        tie_embeddings="decoder/logits_dense/kernel" not in arrays,
        relative_attention_num_buckets=num_buckets,
    )
    named = (known for known in MODELS.values() if dataclasses.replace(known, name=name) == config)
    return next(named, config)


def _fold_heads(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) < 3:
        return shape
    if name.endswith("/out/kernel"):
        heads, head_dim, embed = shape
        return (heads * head_dim, embed)
    embed, heads, head_dim = shape
    return (embed, heads * head_dim)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    index = path / INDEX_FILE if path.is_dir() else path
    try:
        content = msgpack.unpackb(
            index.read_bytes(), ext_hook=_decode_extension, strict_map_key=False
        )
    except OSError as error:
        raise UserError(f"{str(path)!r} isn't a T5X checkpoint: {error}.") from error
    except (ValueError, msgpack.UnpackException) as error:
        raise UserError(
            f"{str(index)!r} isn't a T5X checkpoint: it isn't a whole msgpack file ({error})."
        ) from error
    node = content.get("optimizer", content) if isinstance(content, dict) else None
    target = node.get("target") if isinstance(node, dict) else None
    if not isinstance(target, dict):
        raise UserError(f"{str(index)!r} isn't a T5X checkpoint: it has no optimizer/target.")
    return _resolve(target, index.parent, prefix="")


def _resolve(node: Mapping[str, Any], folder: Path, prefix: str) -> dict[str, np.ndarray]:
    arrays = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, np.ndarray):
            arrays[name] = value
        elif not isinstance(value, dict):
            raise UserError(f"{name} in the T5X checkpoint {str(folder)!r} isn't an array.")
        elif "__msgpack_chunked_array__" in value:
            arrays[name] = _join_chunks(value)
        elif "kvstore" in value:
            arrays[name] = _read_zarr(folder / value["kvstore"]["path"], name)
        else:
            arrays |= _resolve(value, folder, prefix=f"{name}/")
    return arrays


def _read_zarr(folder: Path, name: str) -> np.ndarray:
    store = {"driver": "file", "path": str(folder.absolute())}
    try:
        array = tensorstore.open({"driver": "zarr", "kvstore": store}, open=True).result()
        return np.asarray(array.read().result())
    except (ValueError, OSError) as error:
        raise UserError(f"Can't read {name} from {str(folder)!r}: {error}.") from error


def _join_chunks(value: Mapping[str, Any]) -> np.ndarray:
    """Joins an array that Flax cut up because msgpack holds at most 4 GiB in one piece."""
    chunks, shape = value["chunks"], value["shape"]
    pieces = [chunks[str(number)] for number in range(len(chunks))]
    return np.concatenate(pieces).reshape([shape[str(axis)] for axis in range(len(shape))])


def _decode_extension(code: int, data: bytes) -> Any:
    if code not in (_NDARRAY, _NUMPY_SCALAR):
        raise ValueError(f"unknown extension {code}")
    shape, dtype, content = msgpack.unpackb(data)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    return np.frombuffer(content, kind).reshape(shape)
