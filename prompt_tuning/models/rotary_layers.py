"""The layers of T5Gemma and of the decoder-only models, by the spec of their `Stack` (stack.py).

What differs from T5: rotary positions, keys and values shared by groups of heads, and, where the
stack says so, soft caps of attention logits, layers that see a window of positions next to layers
that see all, norms after each block too, norms of each head's query and key, and biases.
Modules that do what T5's do have their names, so that methods find them.

Injected prefixes have no position: their keys aren't rotated and are in every window.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_tuning.models.activation_layout import ONE_DEVICE, ActivationLayout
from prompt_tuning.models.attention import by_head, prompt_of_rows, softmax
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.layers import MLP, Projection, contract, dropout, rms_normed
from prompt_tuning.models.slots import KeyValue, Slots
from prompt_tuning.models.stack import Stack


def angles_of(
    positions: Int[Array, "*shape"], frequencies: Float[Array, "half"]
) -> Float[Array, "*shape half"]:
    """Returns the angles of rotary positions, in radians."""
    return positions.astype(jnp.float32)[..., None] * frequencies


def rotated(
    x: Float[Array, "batch length heads head_dim"], angles: Float[Array, "#batch length half"]
) -> Float[Array, "batch length heads head_dim"]:
    """Returns `x` with rotary positions (RoPE; Su et al., 2021), in float32.

    Feature i is rotated with feature i + head_dim / 2.
    """
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)


class Norm(nn.Module):
    """The stack's root-mean-square norm; Gemma's scale is a difference from 1."""

    stack: Stack
    compute: Compute
    layout: ActivationLayout = ONE_DEVICE

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        """Returns the normed `x`."""
        offset = self.stack.unit_offset
        first = nn.initializers.zeros if offset else nn.initializers.ones
        scale = self.param("scale", first, (x.shape[-1],), jnp.dtype(self.compute.param_dtype))
        scale = 1 + scale.astype(jnp.float32) if offset else scale
        return rms_normed(x, scale, self.stack.norm_epsilon, self.layout)


class GroupedAttention(nn.Module):
    """Attention whose keys and values serve groups of query heads (Ainslie et al., 2023).

    Attributes:
      stack: the stack of the queries.
      source_dim: width of what keys and values are computed from.
    """

    stack: Stack
    source_dim: int
    compute: Compute
    deterministic: bool

    def setup(self) -> None:
        stack = self.stack

        def into(heads: int, width: int) -> Projection:
            return Projection(
                compute=self.compute,
                spec="btd,dhk->bthk",
                shape=(width, heads, stack.head_dim),
                stddev=width**-0.5,
                biased=stack.projection_bias,
            )

        self.query = into(stack.num_heads, stack.embed_dim)
        self.key = into(stack.num_kv_heads, self.source_dim)
        self.value = into(stack.num_kv_heads, self.source_dim)
        self.out = Projection(
            compute=self.compute,
            spec="bthk,hkd->btd",
            shape=(stack.num_heads, stack.head_dim, stack.embed_dim),
            stddev=(stack.num_heads * stack.head_dim) ** -0.5,
        )
        if stack.head_norms:
            self.query_norm = Norm(stack, self.compute)
            self.key_norm = Norm(stack, self.compute)

    def keys_and_values(
        self,
        x: Float[Array, "batch source embed"],
        slots: Slots = Slots(),
        angles: Float[Array, "#batch source half"] | None = None,
    ) -> KeyValue:
        """Returns the keys and values of `x`, without a prefix; rotated if there are angles."""
        key = slots.scaled("key", self.key(x, slots.low_rank.get("key")))
        value = slots.scaled("value", self.value(x, slots.low_rank.get("value")))
        key = self.key_norm(key) if self.stack.head_norms else key
        key = key if angles is None else rotated(key, angles)
        dtype = jnp.dtype(self.compute.product_dtype)
        return KeyValue(key=by_head(key.astype(dtype)), value=by_head(value.astype(dtype)))

    def __call__(
        self,
        x: Float[Array, "rows target embed"],
        sources: Sequence[tuple[KeyValue, Float[Array, "..."]]],
        slots: Slots = Slots(),
        angles: Float[Array, "#rows target half"] | None = None,
    ) -> Float[Array, "rows target embed"]:
        """Returns the attention output for queries computed from `x`.

        Args:
          x: the input of the queries.
          sources: keys and values with the bias of their logits, [#batch, #target, source], in one
            softmax. Those of `batch` examples serve rows/batch consecutive rows each: beams, or
            labels of an example.
          slots: what is injected into the block.
          angles: rotates the queries.
        """
        stack, dtype = self.stack, jnp.dtype(self.compute.product_dtype)
        query = self.query(x, slots.low_rank.get("query"))
        query = self.query_norm(query) if stack.head_norms else query
        query = query if angles is None else rotated(query, angles)
        batch = min(each.key.shape[0] for each, _ in sources)
        # n rows of an example, g groups of r heads: [batch, n, target, g, r, head_dim]
        query = query.reshape(
            batch, -1, x.shape[1], stack.num_kv_heads, stack.num_heads // stack.num_kv_heads,
            stack.head_dim,
        ).astype(dtype)  # fmt: skip
        logits, values = [], []
        for keys_values, bias in sources:
            key, value, of = keys_values.key, keys_values.value, "bgsk"
            if key.shape[0] > batch:  # of each row
                key, value = (each.reshape(batch, -1, *each.shape[1:]) for each in (key, value))
                of = "bngsk"
            product = contract(f"bntgrk,{of}->bgnrts", query, key, self.compute)
            product = capped(product * stack.query_scalar**-0.5, stack.attention_softcap)
            logits.append(product + bias[:, None, None, None])
            values.append((value, of))
        weights = dropout(self, softmax(jnp.concatenate(logits, axis=-1), dtype))
        self._sow(weights, x.shape[0])
        ends = [0]
        gathered: Array | float = 0.0
        for value, of in values:
            ends.append(ends[-1] + value.shape[-2])
            part = weights[..., ends[-2] : ends[-1]]
            gathered += contract(f"bgnrts,{of}->bntgrk", part, value, self.compute)
        gathered = (
            self._with_prompt(jnp.asarray(gathered), query, slots)
            .astype(dtype)
            .reshape(*x.shape[:2], stack.num_heads, stack.head_dim)
        )
        return self.out(gathered, slots.low_rank.get("out")).astype(x.dtype)

    def _with_prompt(
        self,
        gathered: Float[Array, "batch n target groups each head_dim"],
        query: Float[Array, "batch n target groups each head_dim"],
        slots: Slots,
    ) -> Array:
        """Returns what is gathered with that of a gated prompt, if there is one."""
        injected = slots.gated_prompts.get("prompt")
        if injected is None:
            return gathered
        stack = self.stack
        own = self.keys_and_values(injected.prompt.astype(self.compute.compute_dtype), slots)
        prompt = prompt_of_rows(injected, own, query.shape[0])
        logits = contract("bntgrk,bgsk->bgnrts", query, prompt.key, self.compute)
        logits = capped(logits * stack.query_scalar**-0.5, stack.attention_softcap)
        bias = prompt.bias[:, None, None, None, None]
        weights: Any = softmax(logits + bias, jnp.dtype(self.compute.product_dtype))
        added = contract("bgnrts,bgsk->bntgrk", weights, prompt.value, self.compute)
        gate = prompt.gate.reshape(-1, 1, 1, *query.shape[3:5], 1)
        return gathered + gate * added

    def _sow(self, weights: Float[Array, "batch groups n heads target keys"], rows: int) -> None:
        """Stores the weights, [rows, heads, target, keys], if a caller requests them."""
        by_row = jnp.moveaxis(weights, 2, 1)
        self.sow("intermediates", "weights", by_row.reshape(rows, -1, *weights.shape[-2:]))


def capped(x: Array, cap: float) -> Array:
    """Returns `x` within the cap, by tanh; unchanged if it is 0."""
    return cap * jnp.tanh(x / cap) if cap else x


class Blocks(nn.Module):
    """What the layers of all stacks have: norms around blocks, and the feed-forward block.

    Attributes:
      stack: the stack of the layer.
      source_dim: width of the encoder's outputs; 0 if the layer doesn't attend to any.
    """

    stack: Stack
    source_dim: int
    compute: Compute
    deterministic: bool
    layout: ActivationLayout = ONE_DEVICE

    def attention(self, name: str, source_dim: int = 0) -> GroupedAttention:
        """Returns an attention block."""
        width = source_dim or self.stack.embed_dim
        return GroupedAttention(self.stack, width, self.compute, self.deterministic, name=name)

    def normed(self, name: str, x: Array) -> Array:
        """Returns the input of a block."""
        return self._norm(f"pre_{name}", x)

    def added(self, slots: Slots, module: str, output: Array, norm: str = "") -> Array:
        """Returns what a block adds to the residual; a bottleneck comes before the norm."""
        output = slots.with_bottleneck(module, output)
        if self.stack.post_norms:
            output = self._norm(f"post_{norm or module}", output)
        return dropout(self, output)

    def feed_forward(self, x: Array, slots: Slots) -> Array:
        """Returns `x` with the feed-forward block's addition."""
        options = {"compute": self.compute, "deterministic": self.deterministic}
        block = MLP(config=self.stack, **options, name="mlp")
        hidden = block(self.normed("mlp", x), slots.submodule("mlp"))
        return x + self.added(slots, "mlp", hidden)

    def _norm(self, name: str, x: Array) -> Array:
        norm = Norm(self.stack, self.compute, self.layout, name=f"{name}_layer_norm")
        return norm(x)


class Embedder(nn.Module):
    """A stack's embedding table; its rows are multiplied by `scale`, prompts aren't."""

    vocab_size: int
    embed_dim: int
    scale: float
    compute: Compute

    def setup(self) -> None:
        self.embedding = self.param(
            "embedding",
            nn.initializers.normal(self.embed_dim**-0.5),
            (self.vocab_size, self.embed_dim),
            jnp.dtype(self.compute.param_dtype),
        )

    def __call__(self, tokens: Int[Array, "batch length"]) -> Float[Array, "batch length embed"]:
        """Returns the scaled embeddings of `tokens`."""
        found = jnp.take(self.embedding, tokens, axis=0).astype(self.compute.compute_dtype)
        return found * jnp.asarray(self.scale, found.dtype)

    def attend(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length vocab"]:
        """Returns logits against the table."""
        return contract("btd,vd->btv", x, self.embedding, self.compute)
