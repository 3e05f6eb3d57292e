"""Multi-head attention with T5's relative position bias (Raffel et al., 2020, section 2.1).

Logits aren't scaled by `head_dim ** -0.5`: the query kernel's initializer contains that factor.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.layers import Projection, contract, dropout
from prompt_tuning.models.slots import KeyValue, Slots

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


@jax.custom_vjp
def softmax(logits: Float[Array, "*batch keys"]) -> Float[Array, "*batch keys"]:
    """Returns the softmax over the last axis; the backward pass stores only this result.

    With `jax.nn.softmax`, XLA on CPUs stores two more arrays of that size per layer.
    """
    return jax.nn.softmax(logits, axis=-1)


def _softmax_forward(logits: Array) -> tuple[Array, Array]:
    weights = jax.nn.softmax(logits, axis=-1)
    return weights, weights


def _softmax_backward(weights: Array, cotangent: Array) -> tuple[Array]:
    mean = jnp.sum(weights * cotangent, axis=-1, keepdims=True)
    return (weights * (cotangent - mean),)


softmax.defvjp(_softmax_forward, _softmax_backward)


def by_head(x: Float[Array, "batch length heads head_dim"]) -> Array:
    """Returns [batch, heads, length, head_dim]: each head's matrix is contiguous."""
    return x.swapaxes(1, 2)


class RelativePositionBias(nn.Module):
    """A learned bias per head and distance bucket, shared by all layers of a stack."""

    config: T5Config
    compute: Compute
    bidirectional: bool

    @nn.compact
    def __call__(
        self, query_positions: Int[Array, "target"], key_positions: Int[Array, "source"]
    ) -> Float[Array, "heads target source"]:
        """Returns the bias of the attention logits, shared by all examples."""
        config = self.config
        table = self.param(
            "rel_embedding",
            nn.initializers.normal(config.embed_dim**-0.5),
            (config.num_heads, config.relative_attention_num_buckets),
            jnp.dtype(self.compute.param_dtype),
        )
        buckets = relative_position_buckets(
            key_positions[None, :] - query_positions[:, None],
            bidirectional=self.bidirectional,
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )
        return jnp.take(table, buckets, axis=1).astype(jnp.float32)


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
        config, dtype = self.config, self._dtype
        batch = keys_values.key.shape[0]
        query = self.query(x, slots.low_rank.get("query")).astype(dtype)  # [rows, t, heads, k]
        # Folds an example's rows into its query axis: [batch, heads, rows/batch * t, k].
        query = by_head(query.reshape(batch, -1, *query.shape[2:]))
        logits = contract("bhtk,bhsk->bhts", query, keys_values.key, self.compute)
        for bias in biases:
            logits += bias
        weights = dropout(self, softmax(logits).astype(dtype))
        self.sow("intermediates", "weights", weights)  # stored only if a caller requests them
        # Back to [rows, t, heads, k].
        gathered = contract("bhts,bhsk->bhtk", weights, keys_values.value, self.compute).astype(
            dtype
        )
        gathered = gathered.swapaxes(1, 2).reshape(*x.shape[:2], config.num_heads, config.head_dim)
        return self.out(gathered, slots.low_rank.get("out")).astype(x.dtype)
