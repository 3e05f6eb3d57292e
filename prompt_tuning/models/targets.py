"""The modules of the layers that a method can change, and their sizes.

A method receives them as values, since it doesn't depend on a model:

    targets = select_targets(projections(config), ("attention/query", "attention/value"))

Names are those of `injection.py`: "encoder/attention/query", "decoder/mlp/wo".
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.models.parameters import ModelConfig
from prompt_tuning.models.quantization import dequantize_params


@dataclass(frozen=True, kw_only=True)
class Target:
    """A module of every layer of a stack.

    Attributes:
      name: "STACK/MODULE".
      layers: number of layers of the stack.
      inputs: the shape of its input, without batch and length.
      outputs: the shape of its output, without batch and length.
    """

    name: str
    layers: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """The number of values in a projection's kernels, over all layers."""
        return self.layers * math.prod(self.inputs) * math.prod(self.outputs)


_ATTENTION = ("attention", "self_attention", "encoder_decoder_attention")


def projections(config: ModelConfig) -> tuple[Target, ...]:
    """Returns every projection of the layers."""
    return tuple(
        Target(
            name=each.module,
            layers=each.layers,
            inputs=each.shape[1 : 1 + each.inputs],
            outputs=each.shape[1 + each.inputs :],
        )
        for each in config.parameters()
        if each.layers and each.inputs
    )


def attention_blocks(config: ModelConfig) -> tuple[Target, ...]:
    """Returns the attention blocks; `outputs` is the shape of their keys, [heads, head_dim]."""
    keys = select_targets(projections(config), ("key",))
    return tuple(dataclasses.replace(key, name=_block(key)) for key in keys)


def gated_blocks(config: ModelConfig) -> tuple[Target, ...]:
    """Returns the places of gated prompts, BLOCK/prompt: from a key's inputs to [heads]."""
    pairs = (select_targets(projections(config), (each,)) for each in ("key", "query"))
    return tuple(
        dataclasses.replace(key, name=f"{_block(key)}/prompt", outputs=query.outputs[:1])
        for key, query in zip(*pairs, strict=True)
    )


def scalable(config: ModelConfig) -> tuple[Target, ...]:
    """Returns the outputs that can be scaled: keys, values and feed-forward hidden layers."""
    return tuple(
        # The input of "wo" is the hidden layer.
        Target(
            name=f"{_block(each)}/hidden",
            layers=each.layers,
            inputs=each.outputs,
            outputs=each.inputs,
        )
        if _ends(each.name, "wo")
        else each
        for each in select_targets(projections(config), ("key", "value", "wo"))
    )


def blocks(config: ModelConfig) -> tuple[Target, ...]:
    """Returns the attention and feed-forward blocks, each from `embed` to `embed`."""
    return tuple(
        dataclasses.replace(last, name=_block(last), inputs=last.outputs)
        for last in select_targets(projections(config), ("out", "wo"))
    )


def kernel_norms(params: Any, target: Target) -> Float[Array, "layer ..."]:
    """Returns the norm of each output feature's kernel, or ones if `params` are only shapes."""
    stack, *modules = target.name.split("/")
    path = [stack, "layers", *modules]
    for key in path:
        params = params[key]
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(params)):
        return jnp.ones((target.layers, *target.outputs))
    for key in reversed(path):
        params = {key: params}
    found: Any = dequantize_params(params)
    for key in path:
        found = found[key]
    kernel = found["kernel"]
    inputs = tuple(range(1, 1 + len(target.inputs)))
    return jnp.sqrt(jnp.sum(jnp.square(kernel.astype(jnp.float32)), axis=inputs))


def select_targets(targets: Sequence[Target], endings: Sequence[str]) -> tuple[Target, ...]:
    """Returns the targets whose names end with any of `endings`, in the order of `targets`.

    An ending is one or more whole parts of a name: "query" matches every query, "attention/query"
    only the encoder's, "encoder" nothing. A kind of attention that the model lacks is left out:
    without an encoder it has "self_attention" only.

    Raises:
      UserError: an ending matches no target, or all do so.
    """
    found = tuple(t for t in targets if any(_ends(t.name, ending) for ending in endings))
    for ending in endings:
        if found and ending in _ATTENTION:
            continue
        if not any(_ends(target.name, ending) for target in targets):
            known = sorted({part for t in targets for part in (t.name, t.name.split("/")[-1])})
            raise UserError(
                f"The model has no module named '{ending}'; expected, for example, "
                f"{', '.join(sorted({t.name.split('/')[-1] for t in targets}))}."
                f"{did_you_mean(ending, known)}"
            )
    return found


def _ends(name: str, ending: str) -> bool:
    return f"/{name}".endswith(f"/{ending}")


def _block(projection: Target) -> str:
    return projection.name.rpartition("/")[0]
