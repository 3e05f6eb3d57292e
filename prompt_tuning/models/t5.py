"""T5 (Raffel et al., 2020) v1.0, v1.1 and mT5, with stacked layers that are scanned.

    variables, injection = injected(frozen, injection)
    logits = T5(config).apply(variables, batch, injection)

Parameters have T5X's names, with the layers of a stack on a leading `layer` axis. Sizes are in
config.py, the slots of methods in injection.py, generation in decoding.py.
"""

from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_tuning.models.activation_layout import ONE_DEVICE, ActivationLayout
from prompt_tuning.models.attention import Attention
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import Cache, Decoder, Encoded, Encoder
from prompt_tuning.models.injection import (
    ROUTER,
    Injection,
    add_prompt,
    prepend_decoder_prompt,
)
from prompt_tuning.models.layers import TokenEmbedder
from prompt_tuning.models.slots import KeyValue, Slots, repeat_per_row
from prompt_tuning.models.targets import attention_blocks

Batch = Mapping[str, Array]
Params = dict[str, Any]


class T5(nn.Module):
    """The T5 encoder-decoder.

    A batch is a mapping with SeqIO's names: `encoder_input_tokens` [batch, source],
    `decoder_input_tokens` [batch, target] and the loss's features. Padding is `config.pad_id`.

    Attributes:
      config: the architecture.
      compute: numerics and memory options.
      layout: a `parallel.rules.Layout` if the model is on several devices.
    """

    config: T5Config
    compute: Compute = Compute()
    layout: ActivationLayout = ONE_DEVICE

    def setup(self) -> None:
        self.token_embedder = TokenEmbedder(self.config, self.compute)
        self.encoder = Encoder(self.config, self.compute, self.layout)
        self.decoder = Decoder(self.config, self.compute, self.layout)

    def __call__(
        self, batch: Batch, injection: Injection = Injection(), *, deterministic: bool = True
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
    ) -> Encoded:
        """Returns the encoder's outputs, those of the prompt first."""
        embedded = self.token_embedder(encoder_input_tokens)
        mask = encoder_input_tokens != self.config.pad_id
        key = self.make_rng(ROUTER) if self.has_rng(ROUTER) else None
        embedded, mask = add_prompt(embedded, mask, injection, key)
        outputs = self.encoder(embedded, mask, injection, deterministic)
        return Encoded(outputs=outputs, mask=mask, injection=injection)

    def decode(
        self,
        encoded: Encoded,
        decoder_input_tokens: Int[Array, "rows target"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "rows target vocab"]:
        """Returns logits for targets, given shifted right behind a start token.

        The model overwrites the first column with its own start token, `config.start_id`, which
        data pipelines don't know.

        `rows` may be n times the encoded batch: rows n*i to n*i+n-1 are then n targets of example
        i, which share its encoder outputs.
        """
        decoder_input_tokens = self._started(decoder_input_tokens, jnp.int32(0))
        embedded = self._target_embeddings(decoder_input_tokens)
        embedded = prepend_decoder_prompt(embedded, encoded.injection)
        hidden, _ = self.decoder(embedded, encoded, deterministic, None, jnp.int32(0))
        return self._logits(hidden)

    def start_cache(self, encoded: Encoded, rows: int, length: int) -> Cache:
        """Returns the cache of `rows` targets before their first step.

        Args:
          encoded: from `encode`.
          rows: the encoded batch or a multiple of it, as in `decode`.
          length: the maximum number of tokens to decode.
        """
        injection = encoded.injection
        slots = injection.layers("decoder")
        cache = Cache(
            self_kv=self._empty_self_kv(slots, rows, injection.decoder_prompt_length + length),
            cross_kv=self._cross_kv(encoded.outputs, slots),
        )
        prompt = injection.decoder_prompt
        if prompt is not None:  # cached as if its positions were tokens already decoded
            prompt = repeat_per_row(prompt, rows).astype(self.compute.compute_dtype)
            prompt = jnp.broadcast_to(prompt, (rows, *prompt.shape[1:]))
            _, cache = self.decoder(prompt, encoded, True, cache, jnp.int32(0))
        return cast(Cache, cache)

    def _empty_self_kv(self, slots: Slots, rows: int, length: int) -> KeyValue:
        """Returns the self-attention prefixes, each followed by zeros for `length` tokens."""
        (block,) = (
            each for each in attention_blocks(self.config) if each.name == "decoder/self_attention"
        )
        heads, head_dim = block.outputs
        shape = (block.layers, rows, heads, length, head_dim)
        zeros = jnp.zeros(shape, jnp.dtype(self.compute.product_dtype))
        return jax.vmap(lambda slots, kv: slots.prefixed("self_attention", kv))(
            slots, KeyValue(key=zeros, value=zeros)
        )

    def _cross_kv(self, outputs: Float[Array, "batch source embed"], slots: Slots) -> KeyValue:
        """Returns every decoder layer's keys and values of the encoder's outputs."""
        name = self._cross_block
        attention = self._cross_attention()
        stacked = self.variables["params"]["decoder"]["layers"][name]
        needed = ("key", "value", "key_norm")
        projections = {module: stacked[module] for module in needed if module in stacked}

        def of_layer(_: None, layer: tuple[Params, Slots]) -> tuple[None, KeyValue]:
            params, slots = layer
            cross_kv = attention.apply(
                {"params": params}, outputs, slots.submodule(name), method="keys_and_values"
            )
            return None, slots.prefixed("encoder_decoder_attention", cast(KeyValue, cross_kv))

        length = self.config.num_decoder_layers
        _, cross_kv = jax.lax.scan(
            of_layer, None, (projections, slots), length, unroll=self.compute.unroll or length
        )
        return cross_kv

    def decode_step(
        self,
        encoded: Encoded,
        tokens: Int[Array, "rows"],
        cache: Cache,
        position: Int[Array, ""],
    ) -> tuple[Float[Array, "rows vocab"], Cache]:
        """Returns logits for the token after `tokens`, which are at `position`, and the next cache.

        At position 0 the start token replaces `tokens`, as in `decode`.
        """
        embedded = self._target_embeddings(self._started(tokens[:, None], position))
        position = position + encoded.injection.decoder_prompt_length
        hidden, advanced = self.decoder(embedded, encoded, True, cache, position)
        return self._logits(hidden)[:, 0], cast(Cache, advanced)

    def _started(
        self, tokens: Int[Array, "rows target"], position: Int[Array, ""]
    ) -> Int[Array, "rows target"]:
        """Returns the tokens, which start at `position`, with the start token at position 0."""
        if self.config.start_id == self.config.pad_id:  # already there
            return tokens
        positions = position + jnp.arange(tokens.shape[1])
        return jnp.where(positions == 0, self.config.start_id, tokens)

    def _target_embeddings(self, tokens: Int[Array, "rows target"]) -> Array:
        return self.token_embedder(tokens)

    @property
    def _cross_block(self) -> str:
        """The decoder's block that attends to the encoder's outputs."""
        return "encoder_decoder_attention"

    def _cross_attention(self) -> nn.Module:
        """Returns it unbound, to be applied to one layer of the stacked parameters at a time."""
        return Attention(config=self.config, compute=self.compute, deterministic=True, parent=None)

    def _logits(self, x: Float[Array, "rows target features"]) -> Array:
        return self.token_embedder.attend(x) if self.config.tie_embeddings else x
