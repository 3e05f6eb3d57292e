"""T5Gemma (Zhang et al., 2025): an encoder-decoder whose layers are Gemma 2's.

    variables, injection = injected(frozen, injection)
    logits = T5Gemma(config).apply(variables, batch, injection)

Its layers are in rotary_layers.py; each stack has an embedding table, whose rows are multiplied by
the square root of its width, and the output is soft-capped.

T5Gemma 2 has Gemma 3's layers and one table. In its decoder one block attends to the layer's own
positions and to the encoder's outputs, with one softmax: `T5GemmaConfig.merged`. Images are left
out, and so is the embedding of their end.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from prompt_tuning.axes import BATCH, EMBED, SOURCE, TARGET
from prompt_tuning.models.activation_layout import ONE_DEVICE, ActivationLayout
from prompt_tuning.models.attention import mask_bias
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.encoder_decoder import (
    Cache,
    Dropout,
    Encoded,
    stacked,
    with_output_layer,
)
from prompt_tuning.models.injection import (
    Injection,
    encoder_sight,
    visible_decoder_keys,
    with_prefix_mask,
)
from prompt_tuning.models.rotary_layers import (
    Blocks,
    Embedder,
    GroupedAttention,
    Norm,
    angles_of,
    capped,
)
from prompt_tuning.models.slots import Slots, repeat_per_row
from prompt_tuning.models.stack import Stack
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma_config import T5GemmaConfig


class Layer(Blocks):
    """A layer of the encoder, or with `source_dim` of the decoder, which attends to its outputs.

    Attributes:
      merged: as in `T5GemmaConfig`.
    """

    merged: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows length embed"],
        cache: Cache | None,
        slots: Slots,
        window: Int[Array, ""],
        frequencies: Float[Array, "half"],
        position: Int[Array, ""],
        positions: Int[Array, "#rows length"],
        distances: Int[Array, "length keys"],
        self_bias: Float[Array, "_ #length keys"],
        encoder_outputs: Float[Array, "batch source width"] | None,
        cross_bias: Float[Array, "batch 1 prefixed"] | None,
    ) -> tuple[Float[Array, "rows length embed"], Cache | None]:
        """Returns the next `x`, and the cache with this step's keys and values.

        Args:
          x: the input; with a cache, of the positions from `position` on.
          cache: of the layer.
          slots: of the layer.
          window: the layer's of `Stack.windows`.
          frequencies: the layer's of `Stack.frequencies`.
          position: where in the cache.
          positions: of the inputs, for rotation.
          distances: how far keys are from queries, below a window's size within it, as those of a
            prefix always are.
          self_bias: of keys that no layer sees, for each of the rows or of the examples.
          encoder_outputs: for the decoder.
          cross_bias: for the decoder.
        """
        axes = (BATCH, TARGET if self.source_dim else SOURCE, EMBED)
        x = self.layout.constrain(x, axes)
        angles = angles_of(positions, frequencies)
        name = "self_attention" if self.source_dim else "attention"
        attention, block = self.attention(name), slots.submodule(name)
        normed = self.normed(name, x)
        self_kv = attention.keys_and_values(normed, block, angles)
        if cache is None:
            self_kv = slots.prefixed(name, self_kv)
        else:
            self_kv = cache.written(self_kv, position)
        near = (window == 0) | (distances < window)
        sources = [(self_kv, self_bias + mask_bias(near))]
        cross_kv = None if cache is None else cache.cross_kv  # computed once, by `T5.start_cache`
        if self.merged and encoder_outputs is not None and cross_bias is not None:
            if cross_kv is None:
                cross_kv = attention.keys_and_values(encoder_outputs, block)
            sources.append((cross_kv, cross_bias))
        x += self.added(slots, name, attention(normed, sources, block, angles))

        if not self.merged and encoder_outputs is not None and cross_bias is not None:
            name = "encoder_decoder_attention"
            attention, block = self.attention(name, self.source_dim), slots.submodule(name)
            normed = self.normed("cross_attention", x)
            if cross_kv is None:
                cross_kv = slots.prefixed(name, attention.keys_and_values(encoder_outputs, block))
            attended = attention(normed, [(cross_kv, cross_bias)], block)
            x += self.added(slots, name, attended, "cross_attention")

        x = self.feed_forward(x, slots)
        if cache is None or cross_kv is None:
            return x, None
        return x, Cache(self_kv=self_kv, cross_kv=cross_kv)


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
        seen = encoder_sight(mask, injection)
        positions = jnp.arange(x.shape[1])
        distances = positions[:, None] - positions[None, :]
        if self.config.merged:  # a window's keys are half up to the query's own, and half after
            distances = jnp.where(distances < 0, -2 * distances - 1, 2 * distances)
        else:  # a window's keys to either side
            distances = jnp.abs(distances) - 1
        prefix = seen.shape[2] - x.shape[1]
        dropped = Dropout(self.compute, deterministic)
        layers = _layers(stack, self.compute)
        x, _ = layers(stack, 0, self.compute, deterministic, self.layout, name="layers")(
            dropped(x),
            None,
            injection.layers("encoder"),
            jnp.array(stack.windows),
            jnp.array(stack.frequencies()),
            jnp.int32(0),
            positions[None],
            jnp.pad(distances, ((0, 0), (prefix, 0))),
            mask_bias(seen),
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
        self_bias = mask_bias(distances >= 0)[None]
        visible = visible_decoder_keys(injection, keys)
        if visible is not None:
            rows = encoded.mask.shape[0] if config.merged else x.shape[0]
            self_bias += repeat_per_row(mask_bias(visible)[:, None], rows)
        cross_mask = with_prefix_mask(encoded.mask, injection, "decoder/encoder_decoder_attention")
        dropped = Dropout(self.compute, deterministic)
        options = (config.encoder.embed_dim, self.compute, deterministic, self.layout)
        layers = _layers(stack, self.compute)(stack, *options, config.merged, name="layers")
        x, advanced = layers(
            dropped(x),
            cache,
            injection.layers("decoder"),
            jnp.array(stack.windows),
            jnp.array(stack.frequencies()),
            position + prefix,
            positions - self._masked(injection, x.shape[0]),
            jnp.where(of_keys < 0, 0, distances),
            self_bias,
            encoded.outputs,
            mask_bias(cross_mask)[:, None],
        )
        if cache is None:
            x = x[:, injection.decoder_prompt_length :]
        norm = Norm(stack, self.compute, self.layout, name="decoder_norm")
        return with_output_layer(self, dropped(norm(x))), advanced

    def _masked(self, injection: Injection, rows: int) -> Int[Array, "#rows 1"]:
        """Returns how many positions of a shorter prompt are masked, for rotation.

        Only where the encoder's keys aren't rotated does it matter where a target begins.
        """
        mask = injection.decoder_prompt_mask
        if mask is None or not self.config.merged:
            return jnp.zeros((1, 1), jnp.int32)
        masked = jnp.sum(~mask, axis=1, keepdims=True).astype(jnp.float32)
        return repeat_per_row(masked, rows).astype(jnp.int32)


def _layers(stack: Stack, compute: Compute) -> Any:
    return stacked(Layer, compute, stack.num_layers, (0, 0, 0, 0, *(nn.broadcast,) * 6))


class T5Gemma(T5):
    """The T5Gemma encoder-decoder; batches, attributes and methods are those of `T5`."""

    config: T5GemmaConfig

    def setup(self) -> None:
        config = self.config
        width = config.encoder.embed_dim
        self.token_embedder = Embedder(config.vocab_size, width, width**0.5, self.compute)
        if not config.merged:
            width = config.decoder.embed_dim
            self.decoder_embedder = Embedder(config.vocab_size, width, width**0.5, self.compute)
        self.encoder = Encoder(config, self.compute, self.layout)
        self.decoder = Decoder(config, self.compute, self.layout)

    def _target_embeddings(self, tokens: Int[Array, "rows target"]) -> Array:
        return self._decoder_table(tokens)

    def _logits(self, x: Float[Array, "rows target features"]) -> Array:
        logits = self._decoder_table.attend(x) if self.config.tie_embeddings else x
        return capped(logits, self.config.final_softcap)

    @property
    def _decoder_table(self) -> Embedder:
        return self.token_embedder if self.config.merged else self.decoder_embedder

    @property
    def _cross_block(self) -> str:
        return "self_attention" if self.config.merged else super()._cross_block

    def _cross_attention(self) -> nn.Module:
        stack, width = self.config.decoder, self.config.encoder.embed_dim
        return GroupedAttention(stack, width, self.compute, deterministic=True, parent=None)
