"""Slots that a method may fill in the layers of a stack, and how the layers read them.

Each kind of slot maps names of modules (paths of parameters within a layer: "attention/query",
"encoder_decoder_attention", "mlp/wo") to arrays. For a whole stack, the arrays have a leading
`layer` axis, which the scan over layers removes, and then a batch axis, which is 1 if all examples
share the values. A method fills slots through `injection.py`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from prompt_tuning.errors import UserError

ACTIVATIONS = {"gelu": jax.nn.gelu, "relu": jax.nn.relu, "silu": jax.nn.silu, "tanh": jnp.tanh}
"""Nonlinearities of a bottleneck by name."""


if TYPE_CHECKING:
    AnyArray = Array
else:
    AnyArray = Array | np.ndarray
    """Injections are also made of files, on the host, before they are sent to devices."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class KeyValue:
    """Keys and values of attention; heads precede positions, as its products need them."""

    key: Float[AnyArray, "*layer batch heads source head_dim"]
    value: Float[AnyArray, "*layer batch heads source head_dim"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class LowRank:
    """An addition to a projection's output x @ W: x @ down @ up (LoRA).

    With a magnitude, the output is x @ V * magnitude / ||V||, V = W + down @ up, with the norm over
    the inputs of each output feature (DoRA).

    Attributes:
      down: [layer, batch or 1, *inputs, rank]; `inputs` are the axes the projection sums over.
      up: [layer, batch or 1, rank, *outputs], with any scaling included.
      magnitude: [layer, batch or 1, *outputs], or None.
    """

    down: Float[AnyArray, "..."]
    up: Float[AnyArray, "..."]
    magnitude: Float[AnyArray, "..."] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GatedPrompt:
    """Vectors to which an attention block attends in a softmax of their own (Zhang et al., 2023).

    The block computes their keys and values, without a position.

    Attributes:
      prompt: [layer, batch or 1, prompt, embed].
      gate: [layer, batch or 1, heads], factors of what each head of the queries gathers.
      visible: [layer, batch or 1, prompt], False for padding; None if all are visible.
    """

    prompt: Float[AnyArray, "..."]
    gate: Float[AnyArray, "..."]
    visible: Bool[AnyArray, "..."] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """An addition to a block's output h: activation(h @ down + down_bias) @ up + up_bias.

    Attributes:
      down: [layer, batch or 1, embed, width].
      down_bias: [layer, batch or 1, width].
      up: [layer, batch or 1, width, embed].
      up_bias: [layer, batch or 1, embed].
      activation: a key of `ACTIVATIONS`.
    """

    down: Float[AnyArray, "..."]
    down_bias: Float[AnyArray, "..."]
    up: Float[AnyArray, "..."]
    up_bias: Float[AnyArray, "..."]
    activation: str = field(default="gelu", metadata={"static": True})

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise UserError(
                f"A bottleneck's activation is '{self.activation}'; expected "
                f"{', '.join(ACTIVATIONS)}."
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Slots:
    """Everything injected into one module and its submodules, by their names within it.

    Attributes:
      prefixes: keys and values prepended to an attention block's own.
      gated_prompts: vectors to which an attention block attends too, by the name BLOCK/prompt.
      low_rank: additions to projections.
      scales: factors [layer, batch or 1, *outputs] of modules' outputs: of attention's projections
        "key" and "value", and of the feed-forward block's "hidden" layer (IA3).
      bottlenecks: additions after attention and feed-forward blocks (adapters).
    """

    prefixes: Mapping[str, KeyValue] = field(default_factory=dict)
    gated_prompts: Mapping[str, GatedPrompt] = field(default_factory=dict)
    low_rank: Mapping[str, LowRank] = field(default_factory=dict)
    scales: Mapping[str, Float[AnyArray, "..."]] = field(default_factory=dict)
    bottlenecks: Mapping[str, Bottleneck] = field(default_factory=dict)

    def submodule(self, module: str) -> "Slots":
        """Returns the slots of the submodules of `module`, by their names within it."""
        start = module + "/"
        return Slots(
            **{
                kind.name: {
                    name.removeprefix(start): slot
                    for name, slot in getattr(self, kind.name).items()
                    if name.startswith(start)
                }
                for kind in dataclasses.fields(self)
            }
        )

    def prefixed(self, module: str, keys_values: KeyValue) -> KeyValue:
        """Returns an attention block's keys and values with its prefix prepended, if it has one."""
        prefix = self.prefixes.get(module)
        if prefix is None:
            return keys_values
        rows = keys_values.key.shape[0]

        def join(before: Array, after: Array) -> Array:
            before = repeat_per_row(before, rows).astype(after.dtype)
            before = jnp.broadcast_to(before, (rows, *before.shape[1:]))
            return jnp.concatenate([before, after], axis=2)

        return jax.tree.map(join, prefix, keys_values)

    def scaled(self, module: str, x: Float[Array, "rows length ..."]) -> Array:
        """Returns a module's output times its factors, if it has any."""
        scale = self.scales.get(module)
        return (
            x if scale is None else x * repeat_per_row(scale, x.shape[0])[:, None].astype(x.dtype)
        )

    def with_bottleneck(
        self, module: str, x: Float[Array, "rows length embed"]
    ) -> Float[Array, "rows length embed"]:
        """Returns a block's output with its bottleneck's output added, if it has one."""
        bottleneck = self.bottlenecks.get(module)
        if bottleneck is None:
            return x
        hidden = _einsum_per_example("btd,dw->btw", x, bottleneck.down)
        hidden += repeat_per_row(bottleneck.down_bias, x.shape[0])[:, None]
        hidden = ACTIVATIONS[bottleneck.activation](hidden)
        added = _einsum_per_example("btw,wd->btd", hidden, bottleneck.up)
        added += repeat_per_row(bottleneck.up_bias, x.shape[0])[:, None]
        return x + added.astype(x.dtype)


def with_low_rank(
    projected: Float[Array, "rows length ..."],
    x: Float[Array, "rows length ..."],
    kernel: Float[Array, "..."],
    low_rank: LowRank,
) -> Array:
    """Returns a projection's output with its low-rank addition, in float32.

    Args:
      projected: x @ kernel.
      x: the projection's input.
      kernel: [*inputs, *outputs].
      low_rank: without a layer axis.
    """
    projected += _low_rank_product(x, low_rank)
    if low_rank.magnitude is None:
        return projected
    # A constant in the backward pass (Liu et al., 2024, section 4.3).
    norm = jax.lax.stop_gradient(_norms(kernel, low_rank))
    return projected * repeat_per_row(low_rank.magnitude / norm, x.shape[0])[:, None]


def _norms(kernel: Float[Array, "..."], low_rank: LowRank) -> Float[Array, "#batch ..."]:
    """Returns the norms of kernel + down @ up, which no example's sum is made for."""
    inputs, outputs = _axes(low_rank)
    kernel, down, up = (each.astype(jnp.float32) for each in (kernel, low_rank.down, low_rank.up))
    einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    crossed = einsum(f"b{inputs}r,{inputs}{outputs}->br{outputs}", down, kernel)
    square = einsum(f"b{inputs}r,b{inputs}s->brs", down, down)
    added = einsum(f"brs,bs{outputs}->br{outputs}", square, up)
    own = jnp.sum(jnp.square(kernel), axis=tuple(range(len(inputs))))
    return jnp.sqrt(own + jnp.sum(up * (2 * crossed + added), axis=1))


def _axes(low_rank: LowRank) -> tuple[str, str]:
    """Returns letters for the inputs and the outputs of a projection."""
    return "ijk"[: low_rank.down.ndim - 2], "uvw"[: low_rank.up.ndim - 2]


def _low_rank_product(x: Float[Array, "rows length ..."], low_rank: LowRank) -> Array:
    """Returns x @ down @ up, in float32."""
    inputs, outputs = _axes(low_rank)
    narrow = _einsum_per_example(f"bt{inputs},{inputs}r->btr", x, low_rank.down)
    return _einsum_per_example(f"btr,r{outputs}->bt{outputs}", narrow, low_rank.up)


def repeat_per_row(
    per_example: Float[AnyArray, "#batch ..."], rows: int
) -> Float[Array, "#rows ..."]:
    """Repeats each example's values for its consecutive rows."""
    batch = per_example.shape[0]
    return per_example if batch in (1, rows) else jnp.repeat(per_example, rows // batch, axis=0)


def _einsum_per_example(spec: str, x: Array, weights: Array) -> Array:
    """Returns the einsum of rows "bt..." with weights, either shared or one per example."""
    if weights.shape[0] == 1:
        weights = weights[0]
    else:
        weights = repeat_per_row(weights, x.shape[0])
        spec = spec.replace(",", ",b")
    return jnp.einsum(spec, x, weights, preferred_element_type=jnp.float32)
