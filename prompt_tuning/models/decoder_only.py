"""Decoder-only models: Gemma 2 and 3, Llama 3, Mistral, Qwen 2.5 and 3, by their config's spec.

    variables, injection = injected(frozen, injection)
    logits = DecoderOnly(config).apply(variables, batch, injection)

A batch is that of an encoder-decoder, with the input as `encoder_input_tokens` and the answer as
targets. `encode` is the prefill: it embeds the input, adds the prompt, and computes every layer's
keys and values. `decode` then reads them for any number of targets per example, which labels and
beams are, as T5's decoder reads the encoder's outputs.

The logits of the first target are those of the last position of the input. So that this position
is no special case, it is left out of the prefill's keys, and its vector starts the targets instead
of a start token: `decode` computes it together with them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from prompt_tuning.axes import BATCH, EMBED, SOURCE, TARGET
from prompt_tuning.errors import UserError
from prompt_tuning.models.activation_layout import ONE_DEVICE, ActivationLayout
from prompt_tuning.models.attention import mask_bias
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.decoder_only_config import DecoderOnlyConfig
from prompt_tuning.models.encoder_decoder import (
    Cache,
    Dropout,
    Encoded,
    stacked,
    with_output_layer,
)
from prompt_tuning.models.injection import ROUTER, Injection, add_prompt, with_prefix_mask
from prompt_tuning.models.rotary_layers import Blocks, Embedder, Norm, angles_of, capped
from prompt_tuning.models.slots import KeyValue, Slots

_BLOCK = "decoder/self_attention"


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Prefilled(Encoded):
    """The input's part of the decoder; `source` includes the prompt, `keys` a prefix too.

    Attributes:
      keys_values: of every layer, [layer, batch, heads, keys, head_dim].
      visible: which keys targets see: all but padding and the last position of the input.
      start: the vector of that last position, the first of the targets' inputs.
      position: its position, counting the keys of a prefix.
    """

    keys_values: KeyValue
    visible: Bool[Array, "batch keys"]
    start: Float[Array, "batch embed"]
    position: Int[Array, "batch"]
    injection: Injection = field(default_factory=Injection)


class Layer(Blocks):
    """A layer, in the prefill, in teacher forcing or in a step of decoding."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows length embed"],
        prefilled: KeyValue | None,
        cache: KeyValue | None,
        slots: Slots,
        window: Int[Array, ""],
        frequencies: Float[Array, "half"],
        position: Int[Array, ""],
        positions: Int[Array, "#rows length"],
        distances: Int[Array, "#rows length keys"],
        to_prefilled: Int[Array, "batch length prefilled"] | None,
    ) -> tuple[Float[Array, "rows length embed"], KeyValue]:
        """Returns the next `x`, and its keys and values: of the cache, if there is one.

        Args:
          x: the input.
          prefilled: the layer's keys and values of the prefill; None in the prefill.
          cache: those of earlier steps, [rows, heads, tokens, head_dim].
          slots: of the layer.
          window: the layer's of `Stack.windows`.
          frequencies: the layer's of `Stack.frequencies`.
          position: where in the cache `x` starts.
          positions: of `x`, for rotation.
          distances: how far its keys are from its queries, negative for those that aren't seen,
            and 0 for those of a prefix.
          to_prefilled: the same for the prefill's keys.
        """
        x = self.layout.constrain(x, (BATCH, SOURCE if prefilled is None else TARGET, EMBED))
        name = "self_attention"
        attention, block = self.attention(name), slots.submodule(name)
        angles = angles_of(positions, frequencies)
        normed = self.normed(name, x)
        own = attention.keys_and_values(normed, block, angles)
        if cache is not None:
            own = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=2),
                cache,
                own,
            )
        elif prefilled is None:
            own = slots.prefixed(name, own)

        def bias(distances: Int[Array, "*shape"]) -> Float[Array, "*shape"]:
            return mask_bias((distances >= 0) & ((window == 0) | (distances < window)))

        sources = [(own, bias(distances))]
        if prefilled is not None and to_prefilled is not None:
            sources.insert(0, (prefilled, bias(to_prefilled)))
        x += self.added(slots, name, attention(normed, sources, block, angles))
        return self.feed_forward(x, slots), own


class Decoder(nn.Module):
    """The layers, the final norm and the output layer, unless it is tied."""

    config: DecoderOnlyConfig
    compute: Compute = Compute()
    layout: ActivationLayout = ONE_DEVICE
    layer: type[Layer] = Layer

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows length embed"],
        injection: Injection,
        deterministic: bool,
        position: Int[Array, ""],
        positions: Int[Array, "#rows length"],
        distances: Int[Array, "#rows length keys"],
        prefilled: KeyValue | None = None,
        cache: KeyValue | None = None,
        to_prefilled: Int[Array, "batch length prefilled"] | None = None,
    ) -> tuple[Float[Array, "rows length features"], KeyValue]:
        """Returns logits, or the last hidden layer in the prefill or if embeddings are tied.

        The second result and the arguments are those of `Layer`, with all layers stacked.
        """
        stack = self.config.decoder
        dropped = Dropout(self.compute, deterministic)
        layers = stacked(
            self.layer, self.compute, stack.num_layers, (0, 0, 0, 0, 0, *(nn.broadcast,) * 4)
        )
        x, keys_values = layers(stack, 0, self.compute, deterministic, self.layout, name="layers")(
            dropped(x),
            prefilled,
            cache,
            injection.layers("decoder"),
            jnp.array(stack.windows),
            jnp.array(stack.frequencies()),
            position,
            positions,
            distances,
            to_prefilled,
        )
        x = dropped(Norm(stack, self.compute, self.layout, name="decoder_norm")(x))
        return x if prefilled is None else with_output_layer(self, x), keys_values


class DecoderOnly(nn.Module):
    """A decoder-only model; batches, attributes and methods are those of `T5`.

    Attributes:
      layer: the module of a layer, for families that change it (docs/adding_a_family.md).
    """

    config: DecoderOnlyConfig
    compute: Compute = Compute()
    layout: ActivationLayout = ONE_DEVICE
    layer: type[Layer] = Layer

    def setup(self) -> None:
        config = self.config
        self.token_embedder = Embedder(
            config.vocab_size, config.embed_dim, config.embedding_scale, self.compute
        )
        self.decoder = Decoder(config, self.compute, self.layout, self.layer)

    def __call__(
        self,
        batch: Mapping[str, Array],
        injection: Injection = Injection(),
        *,
        deterministic: bool = True,
    ) -> Float[Array, "batch target vocab"]:
        """Returns float32 logits for every target position (teacher forcing)."""
        encoded = self.encode(batch["encoder_input_tokens"], injection, deterministic=deterministic)
        return self.decode(encoded, batch["decoder_input_tokens"], deterministic=deterministic)

    def encode(
        self,
        encoder_input_tokens: Int[Array, "batch source"],
        injection: Injection = Injection(),
        *,
        deterministic: bool = True,
    ) -> Prefilled:
        """Returns the keys and values of the input, those of the prompt first.

        Raises:
          UserError: the injection has a prompt of the decoder's input, or restricts the attention
            of an encoder, which have no place here.
        """
        if injection.decoder_prompt is not None:
            raise UserError(
                f"{self.config.name!r} has no encoder, so it has no decoder's prompt besides that "
                "of its input; expected a prompt before, after or around the input."
            )
        if injection.encoder_prompt_attention is not None:
            raise UserError(
                f"{self.config.name!r} has no encoder, whose attention a prompt could restrict; "
                "its prompt sees only what is before it. Leave soft_prompt.attention unset."
            )
        mask = encoder_input_tokens != self.config.pad_id
        key = self.make_rng(ROUTER) if self.has_rng(ROUTER) else None
        embedded = self.token_embedder(encoder_input_tokens)
        embedded, mask = add_prompt(embedded, mask, injection, key)
        places = jnp.arange(mask.shape[1])
        last = jnp.max(jnp.where(mask, places, 0), axis=1)  # [batch]
        # A visible prefix shifts positions. As only differences of rotated positions count, masked
        # positions may count too.
        shift = jnp.sum(injection.prefix_mask(_BLOCK), axis=1)
        seen = with_prefix_mask(mask, injection, _BLOCK)
        of_keys = jnp.arange(seen.shape[1]) - injection.prefix_length(_BLOCK)
        outputs, keys_values = self.decoder(
            embedded,
            injection,
            deterministic,
            jnp.int32(0),
            shift[:, None] + places,
            _distances(places[None], of_keys, seen),
        )
        start = jnp.take_along_axis(embedded, last[:, None, None], axis=1)[:, 0]
        return Prefilled(
            outputs=outputs,
            mask=mask,
            injection=injection,
            keys_values=keys_values,
            visible=seen & (of_keys != last[:, None]),
            start=start,
            position=last + shift,
        )

    def decode(
        self,
        encoded: Prefilled,
        decoder_input_tokens: Int[Array, "rows target"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "rows target vocab"]:
        """Returns logits for targets, given shifted right; the model replaces the first column.

        `rows` may be n times the encoded batch, as in `T5.decode`.
        """
        places = jnp.arange(decoder_input_tokens.shape[1])
        own = (places[:, None] - places)[None]
        return self._decoded(encoded, decoder_input_tokens, jnp.int32(0), own, None, deterministic)[
            0
        ]

    def start_cache(self, encoded: Prefilled, rows: int, length: int) -> Cache:
        """Returns the cache of `rows` targets of at most `length` tokens before their first step.

        Its `cross_kv` are the keys and values of the prefill.
        """
        layers, _, heads, _, head_dim = encoded.keys_values.key.shape
        zeros = jnp.zeros((layers, rows, heads, length, head_dim), encoded.keys_values.key.dtype)
        return Cache(self_kv=KeyValue(key=zeros, value=zeros), cross_kv=encoded.keys_values)

    def decode_step(
        self,
        encoded: Prefilled,
        tokens: Int[Array, "rows"],
        cache: Cache,
        position: Int[Array, ""],
    ) -> tuple[Float[Array, "rows vocab"], Cache]:
        """Returns logits for the token after `tokens`, which are at `position`, and the next cache.

        At position 0 the last vector of the input replaces `tokens`, as in `decode`.
        """
        own = (position - jnp.arange(cache.self_kv.key.shape[3]))[None, None]
        logits, self_kv = self._decoded(encoded, tokens[:, None], position, own, cache, True)
        return logits[:, 0], Cache(self_kv=self_kv, cross_kv=cache.cross_kv)

    def _decoded(
        self,
        encoded: Prefilled,
        tokens: Int[Array, "rows target"],
        position: Int[Array, ""],
        distances: Int[Array, "1 target keys"],
        cache: Cache | None,
        deterministic: bool,
    ) -> tuple[Float[Array, "rows target vocab"], KeyValue]:
        """Returns the logits of inputs that start at `position`, and their keys and values."""
        n = tokens.shape[0] // encoded.start.shape[0]
        places = position + jnp.arange(tokens.shape[1])
        start = jnp.repeat(encoded.start, n, axis=0)[:, None]
        x = jnp.where((places == 0)[:, None], start, self.token_embedder(tokens))
        positions = encoded.position[:, None] + places  # [batch, target]
        injection = encoded.injection
        shift = jnp.sum(injection.prefix_mask(_BLOCK), axis=1)[:, None]
        keys = encoded.visible.shape[1]
        of_keys = jnp.arange(keys) - injection.prefix_length(_BLOCK)
        hidden, keys_values = self.decoder(
            x,
            injection,
            deterministic,
            position,
            jnp.repeat(positions, n, axis=0),
            distances,
            encoded.keys_values if cache is None else cache.cross_kv,
            None if cache is None else cache.self_kv,
            _distances(positions - shift, of_keys, encoded.visible),
        )
        return self.logits(hidden), keys_values

    def logits(
        self, hidden: Float[Array, "rows target features"]
    ) -> Float[Array, "rows target vocab"]:
        """Returns the logits of the decoder's last hidden layer, or its logits bounded."""
        logits: Any = self.token_embedder.attend(hidden) if self.config.tie_embeddings else hidden
        return capped(logits, self.config.final_softcap)


def _distances(
    queries: Int[Array, "#batch length"], keys: Int[Array, "keys"], seen: Bool[Array, "batch keys"]
) -> Int[Array, "batch length keys"]:
    """Returns how far keys are from queries, -1 if they aren't seen.

    Those of a prefix, which are negative, are 0 from all.
    """
    distances = jnp.where(keys < 0, 0, queries[..., None] - keys)
    return jnp.where(seen[:, None], distances, -1)
