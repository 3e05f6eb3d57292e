"""Converts T5X's parameter layouts of a T5 to a common layout.

In the common layout, which all published checkpoints have, layers are separate and heads are folded
into one axis: `encoder/layers_3/attention/query/kernel` is [embed, heads * head_dim]. Flaxformer
and T5X's scalable example have further layouts, which `canonical` converts:

- separate heads, [embed, heads, head_dim] (`split_head_kernel`),
- fused kernels, `qkv_fused` [embed, 3, heads, head_dim], `kv_fused` [embed, 2, ...] and the feed-
  forward block's `wi_fused` [embed, 2, mlp],
- layers stacked on the second axis under `encoder/encoder` and `decoder/decoder` (`scan_layers`).
  These stay stacked, as `encoder/layers/attention/query/kernel` [embed, layers, heads * head_dim].

huggingface.py translates its names into those of the common layout.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prompt_tuning.axes import HEAD_DIM, HEADS
from prompt_tuning.checkpoints.arrays.stored_arrays import (
    Block,
    StoredArray,
    StoredParameter,
    array_in_memory,
)
from prompt_tuning.errors import UserError
from prompt_tuning.json_text import shown
from prompt_tuning.models.config import T5_MODELS, T5Config
from prompt_tuning.models.parameters import Axes, ModelConfig, Parameter, parameter_shapes

_LAYER = re.compile(r"(encoder|decoder)/layers_(\d{1,4})/")
_SCANNED = re.compile(r"^(encoder|decoder)/\1/")
_FUSED = {
    "qkv_fused": ("query", "key", "value"),
    "kv_fused": ("key", "value"),
    "wi_fused": ("wi_0", "wi_1"),
}

# Fields of a config that follow from the shapes of its parameters.
_SIZE = (
    "vocab_size",
    "embed_dim",
    "num_heads",
    "head_dim",
    "mlp_dim",
    "num_encoder_layers",
    "num_decoder_layers",
    "gated_mlp",
    "tie_embeddings",
    "bias_per_layer",
    "relative_attention_num_buckets",
)


def canonical(arrays: Mapping[str, StoredArray], *, source: str) -> dict[str, StoredArray]:
    """Returns a model's arrays by the names of the common layout; `scan_layers` stay stacked.

    Raises:
      UserError: a fused kernel doesn't contain the expected number of kernels, or a stacked
        relative position bias has another number of axes.
    """
    result: dict[str, StoredArray] = {}
    for name, array in arrays.items():
        scanned = _SCANNED.match(name) is not None
        name = _SCANNED.sub(r"\1/layers/", name)
        if scanned and name.endswith("relpos_bias/rel_embedding"):
            name, array = _bias(name, array, source)
        module, _, rest = name.rpartition("/")
        parent, _, fused = module.rpartition("/")
        if fused in _FUSED:
            axis = 2 if scanned else 1
            if array.shape[axis : axis + 1] != (len(_FUSED[fused]),):
                raise UserError(
                    f"In {source} {shown(name)} has shape {shown(array.shape)}; expected "
                    f"{len(_FUSED[fused])} kernels on axis {axis}."
                )
            for position, part in enumerate(_FUSED[fused]):
                one = f"{parent}/{part}/{rest}"
                result[one] = _fold(one, _pick(array, position, scanned), scanned)
        else:
            result[name] = _fold(name, array, scanned)
    return result


def layer_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Returns the names and shapes of the common layout."""
    return {name: layer_shape(each) for each in config.parameters() for name in each.layer_names()}


def layer_shape(parameter: Parameter) -> tuple[int, ...]:
    """Returns the shape of one layer's array, with heads folded into one axis with head_dim."""
    folded = _folded(parameter.shape, parameter.axes)
    return folded[1:] if parameter.layers else folded


def expected_shapes(
    config: ModelConfig, arrays: Mapping[str, StoredArray]
) -> dict[str, tuple[int, ...]]:
    """Returns the expected names and shapes of canonical arrays, stacked or separate."""
    shapes = {}
    for each in config.parameters():
        shape = layer_shape(each)
        if each.layers and each.name in arrays:
            shapes[each.name] = (shape[0], each.layers, *shape[1:])
        else:
            shapes |= dict.fromkeys(each.layer_names(), shape)
    return shapes


def parameters_from_layers(
    arrays: Mapping[str, StoredArray], config: ModelConfig
) -> dict[str, StoredParameter]:
    """Returns the model's parameters, backed by canonical arrays.

    Args:
      arrays: canonical arrays, checked against `expected_shapes`.
      config: the model's.
    """
    return {
        each.name: StoredParameter(
            shape=each.shape, parts=[(arrays[each.name], _scanned_view(each))]
        )
        if each.layers and each.name in arrays
        else from_layers([arrays[name] for name in each.layer_names()], each)
        for each in config.parameters()
    }


def from_layers(
    arrays: Sequence[StoredArray], parameter: Parameter, *, transposed: bool = False
) -> StoredParameter:
    """Returns a parameter backed by one array per layer, or a single array.

    Args:
      arrays: each of `layer_shape`.
      parameter: of the model.
      transposed: whether the axes of `arrays` are in reverse order.
    """
    folded = _folded(parameter.shape, parameter.axes)

    def view(layer: int) -> Callable[[np.ndarray], np.ndarray]:
        def where(whole: np.ndarray) -> np.ndarray:
            one = whole.reshape(folded)[layer] if parameter.layers else whole.reshape(folded)
            return one.T if transposed else one

        return where

    parts = [(array, view(layer)) for layer, array in enumerate(arrays)]
    return StoredParameter(shape=parameter.shape, parts=parts)


def infer_config(arrays: Mapping[str, StoredArray], *, name: str, source: str) -> T5Config:
    """Returns the config whose parameters have the shapes of canonical `arrays`.

    Its name is that of the published model with an equal config, otherwise `name`. The shapes
    don't determine `relative_attention_max_distance`, which is T5's 128.

    Raises:
      UserError: parameters that determine the size are missing, or the size is impossible.
    """

    def shape(parameter: str, axes: int) -> tuple[int, ...]:
        stacked = _LAYER.sub(r"\1/layers/", parameter)
        found = None
        if parameter in arrays:
            found = arrays[parameter].shape
        elif stacked in arrays:
            found = arrays[stacked].shape[:1] + arrays[stacked].shape[2:]
        if found is None or len(found) != axes:
            raise UserError(
                f"{source} isn't a T5 checkpoint: {parameter} "
                + ("is missing." if found is None else f"has shape {found}, expected {axes} axes.")
            )
        return found

    def layers(stack: str) -> int:
        stacked = f"{stack}/layers/pre_mlp_layer_norm/scale"
        if stacked in arrays:
            shape(stacked, 2)
            return arrays[stacked].shape[1]
        numbers = [int(m.group(2)) for m in map(_LAYER.match, arrays) if m and m.group(1) == stack]
        return max(numbers, default=-1) + 1

    vocab_size, embed_dim = shape("token_embedder/embedding", 2)
    bias = "relpos_bias/rel_embedding"
    bias_per_layer = f"encoder/{bias}" not in arrays and any(bias in name for name in arrays)
    first = "layers_0/" if bias_per_layer else ""
    num_heads, num_buckets = shape(f"encoder/{first}{bias}", 2)
    gated = any(name.endswith("/mlp/wi_0/kernel") for name in arrays)
    try:
        config = T5Config(
            name=name,
            vocab_size=vocab_size,
            embed_dim=embed_dim,
            num_heads=num_heads,
            head_dim=shape("encoder/layers_0/attention/query/kernel", 2)[1] // max(1, num_heads),
            mlp_dim=shape(f"encoder/layers_0/mlp/{'wi_0' if gated else 'wi'}/kernel", 2)[1],
            num_encoder_layers=layers("encoder"),
            num_decoder_layers=layers("decoder"),
            gated_mlp=gated,
            tie_embeddings="decoder/logits_dense/kernel" not in arrays,
            bias_per_layer=bias_per_layer,
            relative_attention_num_buckets=num_buckets,
        )
    except UserError as error:  # the size is impossible
        raise UserError(f"{source} isn't a T5 checkpoint: {error}") from error
    named = (
        known for known in T5_MODELS.values() if dataclasses.replace(known, name=name) == config
    )
    return next(named, config)


def check_size(found: ModelConfig, expected: ModelConfig, *, source: str) -> None:
    """Checks that a checkpoint has the expected size.

    Raises:
      UserError: it doesn't; lists the differences.
    """
    if not (isinstance(found, T5Config) and isinstance(expected, T5Config)):
        ours, theirs = parameter_shapes(expected), parameter_shapes(found)
        odd = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        if odd:
            raise UserError(
                f"The checkpoint {source} doesn't match the model {expected.name!r}: its "
                f"{odd[0]} has shape {theirs.get(odd[0])}, not {ours.get(odd[0])}. Use the gin "
                "file of its size."
            )
        return
    differences = [
        f"its {field} is {getattr(found, field)}, not {getattr(expected, field)}"
        for field in _SIZE
        if getattr(found, field) != getattr(expected, field)
    ]
    if differences:
        raise UserError(
            f"The checkpoint {source} doesn't match the model {expected.name!r}: "
            f"{'; '.join(differences)}. Use the gin file of its size."
        )


def _folded(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """Returns a shape with the adjacent axes heads and head_dim folded into one."""
    if HEAD_DIM not in axes:
        return shape
    at = axes.index(HEADS)
    return (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])


def _scanned_view(parameter: Parameter) -> Callable[[np.ndarray], np.ndarray]:
    folded = _folded(parameter.shape, parameter.axes)
    return lambda whole: np.moveaxis(whole.reshape(folded), 0, 1)


def _pick(array: StoredArray, position: int, scanned: bool) -> StoredArray:
    """Returns one of the kernels fused along the axis after the input (and layer) axis."""
    axis = 2 if scanned else 1
    shape = array.shape[:axis] + array.shape[axis + 1 :]
    return array.map_blocks(shape, lambda start, rows: (start, rows.take(position, axis)))


def _fold(name: str, array: StoredArray, scanned: bool) -> StoredArray:
    """Folds heads and head_dim into one axis if they are separate."""
    if len(array.shape) != (4 if scanned else 3):
        return array
    if re.search(r"attention/(query|key|value)/kernel$", name):
        *first, heads, head_dim = array.shape
        return array.map_blocks(
            (*first, heads * head_dim),
            lambda start, rows: (start, rows.reshape(*rows.shape[:-2], -1)),
        )
    if name.endswith("attention/out/kernel"):
        # [heads, head_dim, embed], or with the layers on the second axis.
        heads, *layers, head_dim, embed = array.shape

        def fold(start: int, rows: np.ndarray) -> Block:
            rows = np.moveaxis(rows, -2, 1)
            return start * head_dim, rows.reshape(-1, *layers, embed)

        return array.map_blocks((heads * head_dim, *layers, embed), fold)
    return array


def _bias(name: str, array: StoredArray, source: str) -> tuple[str, StoredArray]:
    """Returns a stacked relative position bias, or the one [heads, buckets] that layers share."""
    if len(array.shape) != 3 or not array.shape[1]:
        raise UserError(
            f"In {source} {shown(name)} has shape {shown(array.shape)}; expected a relative "
            "position bias [heads, layers, buckets]."
        )
    biases = np.asarray(array)
    if (biases != biases[:, :1]).any():
        return name, array
    return name.replace("/layers/", "/"), array_in_memory(biases[:, 0])
