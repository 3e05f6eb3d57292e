"""Multi-head attention with T5's relative position bias (Raffel et al., 2020, section 2.1).

Logits aren't scaled by `head_dim ** -0.5`: the query kernel's initializer contains that factor.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from prompt_tuning.axes import BATCH, HEADS
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.flash_attention import flash_attention
from prompt_tuning.models.layers import Projection, contract, dropout
from prompt_tuning.models.slots import GatedPrompt, KeyValue, Slots, repeat_per_row

# Added to the logits of hidden positions; finite, so that a fully masked row isn't NaN.
HIDDEN = -1e9


def mask_bias(mask: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns 0 where `mask` is True and a large negative value elsewhere."""
    return jnp.where(mask, 0.0, HIDDEN)


def relative_position_buckets(
    relative_position: Int[Array, "*shape"],
    *,
    bidirectional: bool,
    num_buckets: int,
    max_distance: int,
) -> Int[Array, "*shape"]:
    """Returns the bucket of each key-minus-query distance.

    Half of the buckets (per sign, if bidirectional) contain one distance each. The other half
    widen logarithmically up to `max_distance`; all greater distances share the last bucket.
    """
    buckets = jnp.zeros_like(relative_position)
    if bidirectional:
        num_buckets //= 2
        buckets += num_buckets * (relative_position > 0)
        distance = jnp.abs(relative_position)
    else:
        distance = jnp.maximum(-relative_position, 0)
    exact = num_buckets // 2
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / exact
    scale = (num_buckets - exact) / jnp.log(jnp.float32(max_distance / exact))
    far = exact + (jnp.log(ratio) * scale).astype(distance.dtype)
    return buckets + jnp.where(distance < exact, distance, jnp.minimum(far, num_buckets - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def softmax(logits: Float[Array, "*batch keys"], dtype: jnp.dtype) -> Float[Array, "*batch keys"]:
    """Returns the float32 softmax over the last axis, rounded to `dtype`.

    The backward pass stores only this result, which the product with the values stores anyway.
    """
    return jax.nn.softmax(logits, axis=-1).astype(dtype)


def _softmax_forward(logits: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
    weights = jax.nn.softmax(logits, axis=-1).astype(dtype)
    return weights, weights


def _softmax_backward(dtype: jnp.dtype, weights: Array, cotangent: Array) -> tuple[Array]:
    del dtype
    weights, cotangent = weights.astype(jnp.float32), cotangent.astype(jnp.float32)
    mean = jnp.sum(weights * cotangent, axis=-1, keepdims=True)
    return (weights * (cotangent - mean),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def by_head(x: Float[Array, "batch length heads head_dim"]) -> Array:
    """Returns [batch, heads, length, head_dim]: each head's matrix is contiguous."""
    return x.swapaxes(1, 2)


class PromptOfRows(NamedTuple):
    """A gated prompt as an attention block uses it."""

    key: Float[Array, "batch heads prompt head_dim"]
    value: Float[Array, "batch heads prompt head_dim"]
    bias: Float[Array, "#batch prompt"]
    gate: Float[Array, "#batch query_heads"]


def prompt_of_rows(injected: GatedPrompt, own: KeyValue, batch: int) -> PromptOfRows:
    """Returns the gated prompt of each of `batch` rows, given its keys and values."""
    visible = jnp.ones((1, own.key.shape[2]), bool)
    visible = visible if injected.visible is None else injected.visible
    key, value = (
        jnp.broadcast_to(repeat_per_row(each, batch), (batch, *each.shape[1:]))
        for each in (own.key, own.value)
    )
    bias, gate = (repeat_per_row(each, batch) for each in (mask_bias(visible), injected.gate))
    return PromptOfRows(key=key, value=value, bias=bias, gate=gate)


class RelativePositionBias(nn.Module):
    """A learned bias per head and distance bucket, of a layer or of all layers of a stack."""

    config: T5Config
    compute: Compute
    bidirectional: bool

    @nn.compact
    def __call__(self, relative_position: Int[Array, "*shape"]) -> Float[Array, "heads ..."]:
        """Returns the bias of the attention logits, which is that of all examples.

        A product with one-hot vectors, since gathers are slow on accelerators, as are the
        scatters of their gradient.

        Args:
          relative_position: position of the key minus that of the query.
        """
        config = self.config
        table = self.param(
            "rel_embedding",
            nn.initializers.normal(config.embed_dim**-0.5),
            (config.num_heads, config.relative_attention_num_buckets),
            jnp.dtype(self.compute.param_dtype),
        )
        buckets = relative_position_buckets(
            relative_position,
            bidirectional=self.bidirectional,
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )
        one_hot = jax.nn.one_hot(buckets, table.shape[1], axis=0, dtype=table.dtype)
        bias = jnp.tensordot(table, one_hot, 1, precision=jax.lax.Precision.HIGHEST)
        return bias.astype(self.compute.compute_dtype)


class Attention(nn.Module):
    """Multi-head attention, to the same sequence or to another."""

    config: T5Config
    compute: Compute
    deterministic: bool

    def setup(self) -> None:
        config = self.config
        heads = (config.num_heads, config.head_dim)

        def into_heads(stddev: float) -> Projection:
            return Projection(
                compute=self.compute,
                spec="btd,dhk->bthk",
                shape=(config.embed_dim, *heads),
                stddev=stddev,
            )

        self.query = into_heads((config.embed_dim * config.head_dim) ** -0.5)
        self.key = into_heads(config.embed_dim**-0.5)
        self.value = into_heads(config.embed_dim**-0.5)
        self.out = Projection(
            compute=self.compute,
            spec="bthk,hkd->btd",
            shape=(*heads, config.embed_dim),
            stddev=(config.num_heads * config.head_dim) ** -0.5,
        )

    @property
    def _dtype(self) -> jnp.dtype:
        """The dtype of queries, keys and values, which only matrix products use.

        XLA on CPUs lacks the backward pass of batched products of mixed dtypes.
        """
        return jnp.dtype(self.compute.product_dtype)

    def keys_and_values(
        self, x: Float[Array, "batch source embed"], slots: Slots = Slots()
    ) -> KeyValue:
        """Returns the keys and values of `x`, without a prefix."""
        dtype = self._dtype
        key = slots.scaled("key", self.key(x, slots.low_rank.get("key")))
        value = slots.scaled("value", self.value(x, slots.low_rank.get("value")))
        return KeyValue(key=by_head(key.astype(dtype)), value=by_head(value.astype(dtype)))

    def __call__(
        self,
        x: Float[Array, "rows target embed"],
        keys_values: KeyValue,
        *biases: Float[Array, "..."],
        slots: Slots = Slots(),
    ) -> Float[Array, "rows target embed"]:
        """Returns the attention output for queries computed from `x`.

        Args:
          x: the input of the queries. `rows` may be a multiple of the keys' batch; consecutive
            rows then attend to the same keys (beams, or labels of one example).
          keys_values: from `keys_and_values` or a cache.
          *biases: each broadcast to the logits, [batch, heads, target, source].
          slots: what is injected into the block.
        """
        query = self._queries(x, keys_values.key.shape[0], slots)
        logits = contract("bhtk,bhsk->bhts", query, keys_values.key, self.compute)
        weights = self._weights(logits, biases)
        gathered = contract("bhts,bhsk->bhtk", weights, keys_values.value, self.compute)
        return self._output(gathered, query, x, slots)

    def flash(
        self,
        x: Float[Array, "batch target embed"],
        keys_values: KeyValue,
        tables: Float[Array, "heads 128 n"],
        mask: Bool[Array, "batch source"],
        *,
        layout: Any,
        slots: Slots = Slots(),
    ) -> Float[Array, "batch target embed"]:
        """Returns the same by a kernel that stores no attention weights, without dropout.

        Args:
          x, keys_values, slots: as in `__call__`.
          tables: the position bias, from `bias_tables`.
          mask: which keys are visible.
          layout: the model's `Layout`.
        """
        by_heads = (BATCH, HEADS, None, None)
        attend = layout.by_shard(
            flash_attention,
            (by_heads, by_heads, by_heads, (HEADS, None, None), (BATCH, None)),
            by_heads,
        )
        query = self._queries(x, x.shape[0], slots)
        gathered = attend(query, keys_values.key, keys_values.value, tables, mask)
        return self._output(gathered, query, x, slots)

    def folded(
        self,
        x: Float[Array, "rows target embed"],
        source: Float[Array, "batch source embed"],
        *biases: Float[Array, "..."],
        slots: Slots = Slots(),
    ) -> Float[Array, "rows target embed"]:
        """Returns the same for keys and values of `source`, without computing these.

        Each query is multiplied by the key kernel, each weighted sum of `source` by the value
        kernel. With fewer queries per example than `head_dim`, that is less work and memory.
        """
        query = self._queries(x, source.shape[0], slots)
        folded = self.key(query, spec="bhtk,dhk->bhtd")
        logits = contract("bhtd,bsd->bhts", folded, source, self.compute)
        weights = self._weights(logits, biases)
        gathered = contract("bhts,bsd->bhtd", weights, source, self.compute)
        return self._output(self.value(gathered, spec="bhtd,dhk->bhtk"), query, x, slots)

    def folds(self, queries: int, slots: Slots) -> bool:
        """Whether `folded` is possible and less work, forward and backward, for an example."""
        changed = {"key", "value"} & {*slots.low_rank, *slots.scales}
        return not changed and queries <= self.config.head_dim // 2

    def _queries(
        self, x: Float[Array, "rows target embed"], batch: int, slots: Slots
    ) -> Float[Array, "batch heads queries head_dim"]:
        """Returns the queries, with an example's rows folded into one axis: rows/batch * target."""
        query = self.query(x, slots.low_rank.get("query")).astype(self._dtype)
        return by_head(query.reshape(batch, -1, *query.shape[2:]))

    def _weights(
        self,
        logits: Float[Array, "batch heads queries source"],
        biases: Sequence[Float[Array, "..."]],
    ) -> Float[Array, "batch heads queries source"]:
        for bias in biases:
            logits += bias
        weights = dropout(self, softmax(logits, self._dtype))
        self.sow("intermediates", "weights", weights)  # stored only if a caller requests them
        return weights

    def _output(
        self,
        gathered: Float[Array, "batch heads queries head_dim"],
        query: Float[Array, "batch heads queries head_dim"],
        x: Float[Array, "rows target embed"],
        slots: Slots,
    ) -> Float[Array, "rows target embed"]:
        injected = slots.gated_prompts.get("prompt")
        if injected is not None:
            dtype = jnp.dtype(self.compute.compute_dtype)
            own = self.keys_and_values(injected.prompt.astype(dtype), slots)
            prompt = prompt_of_rows(injected, own, query.shape[0])
            logits = contract("bhtk,bhsk->bhts", query, prompt.key, self.compute)
            weights: Any = softmax(logits + prompt.bias[:, None, None], self._dtype)
            added = contract("bhts,bhsk->bhtk", weights, prompt.value, self.compute)
            gathered += prompt.gate[:, :, None, None] * added
        gathered = by_head(gathered.astype(self._dtype))  # [batch, queries, heads, head_dim]
        gathered = gathered.reshape(*x.shape[:2], *gathered.shape[2:])
        return self.out(gathered, slots.low_rank.get("out")).astype(x.dtype)
