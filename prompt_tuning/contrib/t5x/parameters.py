"""The parameters of a frozen model and a method as one tree of T5X, and back.

The frozen parameters have the names and shapes of T5X's published checkpoints: layers are separate,
and heads are folded, `encoder/layers_3/attention/query/kernel` [embed, heads * head_dim]. A soft
prompt before the input is `encoder/prompt/prompt/prompt`, as in the checkpoints of the paper's
code. The parameters of other methods are below `method/`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, PyTree

from prompt_tuning.axes import BUCKETS, EMBED, HEAD_DIM, HEADS, LAYER, MLP, VOCAB
from prompt_tuning.checkpoints.adapters.t5x_prompts import VARIABLE
from prompt_tuning.checkpoints.frozen.layouts import layer_shape
from prompt_tuning.checkpoints.frozen.t5x import OF_METHODS
from prompt_tuning.methods.base import Method, Trained, bind
from prompt_tuning.models.parameters import ModelConfig, Parameter

_METHOD = "method/"
# T5X's names of logical axes, by which its partitioner shards parameters; heads and head_dim are
# one axis, "joined_kv".
_AXES = {
    VOCAB: "vocab",
    EMBED: "embed",
    MLP: "mlp",
    HEADS: "heads",
    BUCKETS: "relpos_buckets",
}

Tree = Mapping[str, Any]
"""A nested dict of arrays, or of anything else for each array."""


def is_trained(name: str) -> bool:
    """Whether a parameter of the T5X tree, by "/"-joined name, is the method's."""
    return name.startswith(OF_METHODS)


def frozen_to_t5x(params: PyTree, config: ModelConfig) -> dict[str, Any]:
    """Returns a frozen model's parameters as T5X's tree."""
    flat: dict[str, Any] = flatten_dict(params, sep="/")
    found = {}
    for each in config.parameters():
        for layer, name in enumerate(each.layer_names()):
            array = flat[each.name][layer] if each.layers else flat[each.name]
            found[name] = array.reshape(layer_shape(each))
    return unflatten_dict(found, sep="/")


def frozen_from_t5x(tree: Tree, config: ModelConfig) -> dict[str, Any]:
    """Returns a frozen model's parameters, with stacked layers, from T5X's tree.

    XLA removes the stacking where the model's layers are unrolled.
    """
    flat: dict[str, Any] = flatten_dict(tree, sep="/")

    def stacked(parameter: Parameter) -> Array:
        layers = [flat[name] for name in parameter.layer_names()]
        whole = jnp.stack(layers) if parameter.layers else layers[0]
        return whole.reshape(parameter.shape)

    return unflatten_dict({each.name: stacked(each) for each in config.parameters()}, sep="/")


def with_axes(params: Mapping[str, Array], config: ModelConfig) -> dict[str, Any]:
    """Returns parameters, by "/"-joined name, as T5X's variables, with their logical axes.

    The method's are replicated.
    """
    axes = {name: _axes_of(each) for each in config.parameters() for name in each.layer_names()}
    named = {
        f"{name}_axes": AxisMetadata(axes.get(name, (None,) * array.ndim))
        for name, array in params.items()
    }
    return {
        "params": unflatten_dict(dict(params), sep="/"),
        "params_axes": unflatten_dict(named, sep="/"),
    }


def initial(method: Callable[[Any], Method], base: Any) -> tuple[Method, Trained]:
    """Returns a frozen model's method, with its constants, and initial values of its parameters."""
    made = method(base)
    tokens = jnp.ones((1, 1), jnp.int32)
    batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens}
    return bind(made, made.init(jax.random.key(0), batch))


def trained_to_t5x(trained: PyTree) -> dict[str, Any]:
    """Returns a method's parameters as T5X's tree."""
    return unflatten_dict(_named(trained), sep="/")


def trained_from_t5x(tree: Tree, like: PyTree) -> PyTree:
    """Returns a method's parameters from T5X's tree, in the structure of `like`."""
    flat: dict[str, Any] = flatten_dict(tree, sep="/")
    return jax.tree.unflatten(jax.tree.structure(like), [flat[name] for name in _named(like)])


def _named(trained: PyTree) -> dict[str, Any]:
    """Returns a method's leaves, in JAX's order, by T5X's names."""
    leaves = jax.tree_util.tree_leaves_with_path(trained["params"])
    names = ["/".join(str(key.key) for key in path) for path, _ in leaves]
    if names == ["prompt"]:
        return {VARIABLE: leaves[0][1]}
    return {_METHOD + name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}


def _axes_of(parameter: Parameter) -> tuple[str | None, ...]:
    axes = []
    for axis in parameter.axes:
        if axis == HEAD_DIM:  # follows heads
            axes[-1] = "joined_kv"
        elif axis != LAYER:
            axes.append(None if axis is None else _AXES[axis])
    # T5X names the single axis of a norm's scale "embed".
    return ("embed",) if axes == [None] else tuple(axes)
