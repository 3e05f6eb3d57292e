"""Merges an injection into the frozen weights, so that inference needs no injection.

Low-rank additions are added to kernels (Hu et al., 2021, section 4.1: no latency at inference).
Factors of keys and values scale the kernels that compute them, factors of hidden layers the kernels
that read them. Weights replace the frozen ones. Prompts, prefixes and bottlenecks correspond to no
weight and can't be merged.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array

from prompt_tuning.errors import UserError
from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.models.slots import LowRank

Params = dict[str, Any]

_MERGEABLE = ("low_rank", "scales", "weights")


def merge_injection(frozen: Params, injection: Injection) -> Params:
    """Returns weights with which the model computes what `frozen` does with `injection`.

    Sums and products are in float32; each parameter keeps its dtype.

    Raises:
      UserError: a slot can't be merged, or contains values of several examples.
      ValueError: the injection belongs to another model.
    """
    for field in dataclasses.fields(injection):
        filled = getattr(injection, field.name)
        if field.name not in _MERGEABLE and jax.tree.leaves(filled):
            raise UserError(
                f"The trained parameters have {field.name.replace('_', ' ')}, which can't be "
                "merged into the model's weights; only lora, dora, vera, ia3 and weights "
                "(model_tuning, norm_scales) can. Use them with the frozen model."
            )
    variables, injection = injected(frozen, injection)
    params = jax.tree.map(lambda leaf, old: leaf.astype(old.dtype), variables["params"], frozen)
    names = flatten_dict(params, sep="/")
    for name, low_rank in injection.low_rank.items():
        params = _changed(params, name, functools.partial(_with_product, low_rank=low_rank))
    # After low ranks, since factors scale the sum of a projection and its addition.
    for name, scale in injection.scales.items():
        factors = _drop_batch_axis(name, scale)
        block, _, module = name.rpartition("/")

        def with_outputs(kernel: Array, factors: Array = factors) -> Array:
            layers, _, *outputs = kernel.shape  # [layer, embed, heads, head_dim]
            return kernel * _shaped(factors, (layers, *outputs))[:, None]

        def with_inputs(kernel: Array, factors: Array = factors) -> Array:
            return kernel * _shaped(factors, kernel.shape[:2])[:, :, None]

        if module == "hidden":
            params = _changed(params, f"{block}/wo", with_inputs)
        else:
            params = _changed(params, name, with_outputs)
            if name.replace("/", "/layers/", 1) + "/bias" in names:
                params = _changed(
                    params, name, lambda bias, factors=factors: bias * factors, "bias"
                )
    return params


def _shaped(array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape != shape:
        raise ValueError(f"The merged weight has shape {array.shape}; the model's has {shape}.")
    return array


def _with_product(kernel: Array, low_rank: LowRank) -> Array:
    """Returns kernels with down @ up, [layer, *inputs, *outputs], added and with magnitudes."""
    down, up = (_drop_batch_axis("a low rank", array) for array in (low_rank.down, low_rank.up))
    product = jax.vmap(lambda down, up: jnp.tensordot(down, up, axes=1))(down, up)
    kernel = kernel + _shaped(product, kernel.shape)
    if low_rank.magnitude is None:
        return kernel
    magnitude = _drop_batch_axis("a magnitude", low_rank.magnitude)
    inputs = tuple(range(1, down.ndim - 1))
    norm = jnp.sqrt(jnp.sum(jnp.square(kernel), axis=inputs, keepdims=True))
    return kernel * jnp.expand_dims(magnitude, inputs) / norm


def _drop_batch_axis(name: str, array: Array) -> Array:
    """Returns an array without its batch axis."""
    if array.shape[1] != 1:
        raise UserError(
            f"{name} has separate values for {array.shape[1]} examples; only values shared by all "
            "examples can be merged into a model."
        )
    return jnp.asarray(array[:, 0], jnp.float32)


def _changed(params: Params, name: str, change: Any, parameter: str = "kernel") -> Params:
    """Returns the parameters with `change` applied to a stacked parameter of "STACK/MODULE"."""
    stack, *rest = name.split("/")

    def within(tree: Any, path: list[str]) -> Any:
        if not path:
            return change(tree.astype(jnp.float32)).astype(tree.dtype)
        if path[0] not in tree:
            raise ValueError(f"The model has no {name}.")
        return {**tree, path[0]: within(tree[path[0]], path[1:])}

    return within(params, [stack, "layers", *rest, parameter])
