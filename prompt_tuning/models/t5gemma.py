"""T5Gemma (Zhang et al., 2025): an encoder-decoder whose layers are Gemma 2's.

    variables, injection = injected(frozen, injection)
    logits = T5Gemma(config).apply(variables, batch, injection)

What differs from T5: rotary positions, keys and values shared by groups of heads, soft caps of
attention logits and of the output, layers that see a window of positions next to layers that see
all, norms after each block too, and embeddings scaled by the square root of their width, one table
a stack. Modules that do what T5's do have their names, so that methods find them.

Injected prefixes have no position: their keys aren't rotated and are in every window.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from prompt_tuning.axes import BATCH, EMBED, SOURCE, TARGET
from prompt_tuning.models.activation_layout import ONE_DEVICE, ActivationLayout
from prompt_tuning.models.attention import by_head, mask_bias, softmax
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.encoder_decoder import Cache, Dropout, Encoded, stacked
from prompt_tuning.models.injection import Injection, visible_decoder_keys, with_prefix_mask
from prompt_tuning.models.layers import MLP as FeedForward
from prompt_tuning.models.layers import Projection, contract, dropout, rms_normed
from prompt_tuning.models.slots import KeyValue, Slots, repeat_per_row
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma_config import Stack, T5GemmaConfig


def rotated(
    x: Float[Array, "batch heads length head_dim"], positions: Int[Array, "length"], theta: float
) -> Float[Array, "batch heads length head_dim"]:
    """Returns `x` with rotary positions (RoPE; Su et al., 2021), in float32.

    Feature i is rotated with feature i + head_dim / 2.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions.astype(jnp.float32)[:, None] * frequencies  # [length, half]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1)


class Norm(nn.Module):
    """Gemma's root-mean-square norm, whose scale is a difference from 1."""

    stack: Stack
    compute: Compute
    layout: ActivationLayout = ONE_DEVICE

    @nn.compact
    def __call__(self, x: Float[Array, "*batch embed"]) -> Float[Array, "*batch embed"]:
        """Returns the normed `x`."""
        dtype = jnp.dtype(self.compute.param_dtype)
        scale = self.param("scale", nn.initializers.zeros, (x.shape[-1],), dtype)
        return rms_normed(x, 1 + scale.astype(jnp.float32), self.stack.norm_epsilon, self.layout)


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

    def keys_and_values(
        self,
        x: Float[Array, "batch source embed"],
        slots: Slots = Slots(),
        positions: Int[Array, "source"] | None = None,
    ) -> KeyValue:
        """Returns the keys and values of `x`, without a prefix; rotated if there are positions."""
        key = by_head(slots.scaled("key", self.key(x, slots.low_rank.get("key"))))
        value = by_head(slots.scaled("value", self.value(x, slots.low_rank.get("value"))))
        if positions is not None:
            key = rotated(key, positions, self.stack.rope_theta)
        dtype = jnp.dtype(self.compute.product_dtype)
        return KeyValue(key=key.astype(dtype), value=value.astype(dtype))

    def __call__(
        self,
        x: Float[Array, "rows target embed"],
        keys_values: KeyValue,
        bias: Float[Array, "#batch 1 #target source"],
        slots: Slots = Slots(),
        positions: Int[Array, "target"] | None = None,
    ) -> Float[Array, "rows target embed"]:
        """Returns the attention output for queries computed from `x`.

        Consecutive rows attend to the same keys if there are more of them, as in T5.
        """
        stack, dtype = self.stack, jnp.dtype(self.compute.product_dtype)
        batch, groups = keys_values.key.shape[:2]
        query = self.query(x, slots.low_rank.get("query"))
        query = by_head(query.reshape(batch, -1, *query.shape[2:]))
        if positions is not None:
            query = rotated(query, positions, stack.rope_theta)
        # [batch, groups, heads of a group, queries, head_dim]
        query = query.reshape(batch, groups, -1, *query.shape[2:]).astype(dtype)
        logits = contract("bgrtk,bgsk->bgrts", query, keys_values.key, self.compute)
        logits = _capped(logits * stack.query_scalar**-0.5, stack.attention_softcap)
        weights = dropout(self, softmax(logits + bias[:, :, None], dtype))
        by_query_head = weights.reshape(batch, stack.num_heads, *weights.shape[3:])
        self.sow("intermediates", "weights", by_query_head)
        gathered = contract("bgrts,bgsk->bgrtk", weights, keys_values.value, self.compute)
        gathered = by_head(gathered.reshape(batch, stack.num_heads, *gathered.shape[3:]))
        gathered = gathered.astype(dtype).reshape(*x.shape[:2], *gathered.shape[2:])
        return self.out(gathered, slots.low_rank.get("out")).astype(x.dtype)


def _capped(x: Array, cap: float) -> Array:
    return cap * jnp.tanh(x / cap) if cap else x


class Layer(nn.Module):
    """A layer of the encoder, or with `source_dim` of the decoder, which attends to its outputs."""

    stack: Stack
    source_dim: int
    compute: Compute
    deterministic: bool
    layout: ActivationLayout = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows length embed"],
        cache: Cache | None,
        slots: Slots,
        window: Int[Array, ""],
        position: Int[Array, ""],
        positions: Int[Array, "length"],
        distances: Int[Array, "length keys"],
        self_bias: Float[Array, "#rows 1 #length keys"],
        encoder_outputs: Float[Array, "batch source width"] | None,
        cross_bias: Float[Array, "batch 1 1 prefixed"] | None,
    ) -> tuple[Float[Array, "rows length embed"], Cache | None]:
        """Returns the next `x`, and the cache with this step's keys and values.

        Args:
          x: the input; with a cache, of the positions from `position` on.
          cache: of the layer.
          slots: of the layer.
          window: the layer's of `Stack.windows`.
          position: where in the cache.
          positions: of the inputs, for rotation.
          distances: how far keys are from queries, never beyond a window for those of a prefix.
          self_bias: of keys that no layer sees.
          encoder_outputs: for the decoder.
          cross_bias: for the decoder.
        """
        options = {"compute": self.compute, "deterministic": self.deterministic}
        axes = (BATCH, TARGET if self.source_dim else SOURCE, EMBED)
        x = self.layout.constrain(x, axes)
        name = "self_attention" if self.source_dim else "attention"
        attention = GroupedAttention(self.stack, self.stack.embed_dim, **options, name=name)
        block = slots.submodule(name)
        normed = self._norm(f"pre_{name}", x)
        self_kv = attention.keys_and_values(normed, block, positions)
        if cache is None:
            self_kv = slots.prefixed(name, self_kv)
        else:
            self_kv = cache.written(self_kv, position)
        near = (window == 0) | (distances < window + (0 if self.source_dim else 1))
        attended = attention(normed, self_kv, self_bias + mask_bias(near), block, positions)
        x += self._added(slots, name, f"post_{name}", attended)

        cross_kv = None
        if encoder_outputs is not None and cross_bias is not None:
            name = "encoder_decoder_attention"
            attention = GroupedAttention(self.stack, self.source_dim, **options, name=name)
            block = slots.submodule(name)
            normed = self._norm("pre_cross_attention", x)
            if cache is None:
                cross_kv = slots.prefixed(name, attention.keys_and_values(encoder_outputs, block))
            else:  # computed once, by `T5.start_cache`
                cross_kv = cache.cross_kv
            attended = attention(normed, cross_kv, cross_bias, block)
            x += self._added(slots, name, "post_cross_attention", attended)

        normed = self._norm("pre_mlp", x)
        hidden = FeedForward(config=self.stack, **options, name="mlp")(
            normed, slots.submodule("mlp")
        )
        x += self._added(slots, "mlp", "post_mlp", hidden)
        if cache is None or cross_kv is None:
            return x, None
        return x, Cache(self_kv=self_kv, cross_kv=cross_kv)

    def _norm(self, name: str, x: Array) -> Array:
        norm = Norm(self.stack, self.compute, self.layout, name=f"{name}_layer_norm")
        return norm(x)

    def _added(self, slots: Slots, module: str, norm: str, output: Array) -> Array:
        """Returns what a block adds to the residual; a bottleneck comes before the norm."""
        return dropout(self, self._norm(norm, slots.with_bottleneck(module, output)))


class Encoder(nn.Module):
    """The encoder's layers and its final norm."""

    config: T5GemmaConfig
    compute: Compute = Compute()
    layout: ActivationLayout = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch source embed"],
        mask: Bool[Array, "batch source"],
        injection: Injection,
        deterministic: bool,
    ) -> Float[Array, "batch source embed"]:
        """Returns the outputs for the embedded input `x`; no position attends to padding."""
        stack = self.config.encoder
        mask = with_prefix_mask(mask, injection, "encoder/attention")
        positions = jnp.arange(x.shape[1])
        distances = jnp.abs(positions[None, :] - positions[:, None])
        prefix = mask.shape[1] - x.shape[1]
        dropped = Dropout(self.compute, deterministic)
        layers = _layers(stack, self.compute)
        x, _ = layers(stack, 0, self.compute, deterministic, self.layout, name="layers")(
            dropped(x),
            None,
            injection.layers("encoder"),
            jnp.array(stack.windows),
            jnp.int32(0),
            positions,
            jnp.pad(distances, ((0, 0), (prefix, 0))),
            mask_bias(mask)[:, None, None, :],
            None,
            None,
        )
        x = self.layout.constrain(x, (BATCH, SOURCE, EMBED))
        return dropped(Norm(stack, self.compute, self.layout, name="encoder_norm")(x))


class Decoder(nn.Module):
    """The decoder's layers, its final norm and the output layer, unless it is tied."""

    config: T5GemmaConfig
    compute: Compute = Compute()
    layout: ActivationLayout = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows extended embed"],
        encoded: Encoded,
        deterministic: bool,
        cache: Cache | None,
        position: Int[Array, ""],
    ) -> tuple[Float[Array, "rows target features"], Cache | None]:
        """Returns logits (or the last hidden layer, if tied) and the next cache, as T5's."""
        config, stack, injection = self.config, self.config.decoder, encoded.injection
        prefix = injection.prefix_length("decoder/self_attention")
        positions = position + jnp.arange(x.shape[1])
        keys = prefix + x.shape[1] if cache is None else cache.self_kv.key.shape[3]
        of_keys = jnp.arange(keys) - prefix
        distances = positions[:, None] - of_keys[None, :]
        self_bias = mask_bias(distances >= 0)[None, None]
        visible = visible_decoder_keys(injection, keys)
        if visible is not None:
            self_bias += repeat_per_row(mask_bias(visible)[:, None, None, :], x.shape[0])
        cross_mask = with_prefix_mask(encoded.mask, injection, "decoder/encoder_decoder_attention")
        dropped = Dropout(self.compute, deterministic)
        layers = _layers(stack, self.compute)
        width = config.encoder.embed_dim
        x, advanced = layers(stack, width, self.compute, deterministic, self.layout, name="layers")(
            dropped(x),
            cache,
            injection.layers("decoder"),
            jnp.array(stack.windows),
            position + prefix,
            positions,
            jnp.where(of_keys < 0, 0, distances),
            self_bias,
            encoded.outputs,
            mask_bias(cross_mask)[:, None, None, :],
        )
        if cache is None:
            x = x[:, injection.decoder_prompt_length :]
        x = self.layout.constrain(x, (BATCH, TARGET, EMBED))
        x = dropped(Norm(stack, self.compute, self.layout, name="decoder_norm")(x))
        if not config.tie_embeddings:
            x = Projection(
                compute=self.compute,
                spec="btd,dv->btv",
                shape=(stack.embed_dim, config.vocab_size),
                stddev=stack.embed_dim**-0.5,
                name="logits_dense",
            )(x)
        return x, advanced


def _layers(stack: Stack, compute: Compute) -> Any:
    return stacked(Layer, compute, stack.num_layers, (0, 0, 0, *(nn.broadcast,) * 6))


class Embedder(nn.Module):
    """A stack's embedding table, scaled by the square root of its width."""

    vocab_size: int
    embed_dim: int
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
        return found * jnp.asarray(self.embed_dim**0.5, found.dtype)

    def attend(self, x: Float[Array, "batch length embed"]) -> Float[Array, "batch length vocab"]:
        """Returns logits against the table."""
        return contract("btd,vd->btv", x, self.embedding, self.compute)


class T5Gemma(T5):
    """The T5Gemma encoder-decoder; batches, attributes and methods are those of `T5`."""

    config: T5GemmaConfig

    def setup(self) -> None:
        config = self.config
        self.token_embedder, self.decoder_embedder = (
            Embedder(config.vocab_size, stack.embed_dim, self.compute)
            for stack in (config.encoder, config.decoder)
        )
        self.encoder = Encoder(config, self.compute, self.layout)
        self.decoder = Decoder(config, self.compute, self.layout)

    def _target_embeddings(self, tokens: Int[Array, "rows target"]) -> Array:
        return self.decoder_embedder(tokens)

    def _logits(self, x: Float[Array, "rows target features"]) -> Array:
        logits = self.decoder_embedder.attend(x) if self.config.tie_embeddings else x
        return _capped(logits, self.config.final_softcap)

    def _cross_attention(self) -> nn.Module:
        stack, width = self.config.decoder, self.config.encoder.embed_dim
        return GroupedAttention(stack, width, self.compute, deterministic=True, parent=None)
