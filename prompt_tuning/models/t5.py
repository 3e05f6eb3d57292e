"""T5 (Raffel et al., 2020) v1.0, v1.1 and mT5, with stacked layers that are scanned.

    variables, injection = injected(frozen, injection)
    logits = T5(config).apply(variables, batch, injection)

Parameters have T5X's names, with the layers of a stack on a leading `layer` axis. Sizes are in
config.py, the slots of methods in injection.py, generation in decoding.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from prompt_tuning.axes import BATCH, EMBED, SOURCE, TARGET
from prompt_tuning.models.attention import Attention, RelativePositionBias, mask_bias
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.flash_attention import bias_tables
from prompt_tuning.models.injection import (
    Injection,
    add_prompt,
    prepend_decoder_prompt,
    visible_decoder_keys,
    with_prefix_mask,
)
from prompt_tuning.models.layers import MLP, Projection, RMSNorm, TokenEmbedder, dropout
from prompt_tuning.models.parameters import Axes
from prompt_tuning.models.slots import KeyValue, Slots, repeat_per_row

Batch = Mapping[str, Array]
Params = dict[str, Any]


@runtime_checkable
class ActivationLayout(Protocol):
    """How activations are divided among devices, by their logical axes (`axes.py`)."""

    def constrain(self, x: Array, logical_axes: Axes) -> Array:
        """Returns `x`, with its sharding constrained if the compiler wouldn't find it itself."""
        ...

    def by_shard(self, f: Callable[..., Array], logical_axes: Sequence[Axes], out: Axes) -> Any:
        """Returns `f` as a function that every device applies to its shards of the arguments."""
        ...


class OneDevice:
    """The layout of a model on one device."""

    def constrain(self, x: Array, logical_axes: Axes) -> Array:
        """Returns `x`."""
        del logical_axes
        return x

    def by_shard(self, f: Callable[..., Array], logical_axes: Sequence[Axes], out: Axes) -> Any:
        """Returns `f`."""
        del logical_axes, out
        return f


ONE_DEVICE = OneDevice()


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The decoder's inputs from the encoder and the method; `source` includes the prompt."""

    outputs: Float[Array, "batch source embed"]
    mask: Bool[Array, "batch source"]
    injection: Injection = Injection()


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Cache:
    """Keys and values cached between decoding steps, with all layers stacked.

    Attributes:
      self_kv: [layer, rows, heads, prefix + length, head_dim]: an injected prefix, the tokens
        decoded so far, and zeros.
      cross_kv: [layer, batch, heads, prefix + source, head_dim]: an injected prefix and the
        encoder's outputs.
    """

    self_kv: KeyValue
    cross_kv: KeyValue


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward block, both pre-norm with a residual connection."""

    config: T5Config
    compute: Compute
    deterministic: bool
    flash: bool
    layout: ActivationLayout = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch source embed"],
        slots: Slots,
        position_bias: Float[Array, "heads ..."],
        mask: Bool[Array, "batch keys"],
    ) -> tuple[Float[Array, "batch source embed"], None]:
        """Returns the next `x`, and None since `nn.scan` expects a second result.

        `position_bias` is [heads, source, keys], or `bias_tables` if the attention is `flash`.
        """
        options = {
            "config": self.config,
            "compute": self.compute,
            "deterministic": self.deterministic,
        }
        x = self.layout.constrain(x, (BATCH, SOURCE, EMBED))
        attention = Attention(**options, name="attention")
        block_slots = slots.submodule("attention")
        normed = RMSNorm(self.config, self.compute, name="pre_attention_layer_norm")(x)
        # [batch, heads, prefix + source, head_dim]
        keys_values = slots.prefixed("attention", attention.keys_and_values(normed, block_slots))
        if self.flash:
            attended = attention.flash(
                normed, keys_values, position_bias, mask, layout=self.layout, slots=block_slots
            )
        else:
            biases = (position_bias, mask_bias(mask)[:, None, None, :])
            attended = attention(normed, keys_values, *biases, slots=block_slots)
        x += dropout(self, slots.with_bottleneck("attention", attended))

        normed = RMSNorm(self.config, self.compute, name="pre_mlp_layer_norm")(x)
        mlp_output = MLP(**options, name="mlp")(normed, slots.submodule("mlp"))
        x += dropout(self, slots.with_bottleneck("mlp", mlp_output))
        return x, None


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward block, pre-norm with residuals."""

    config: T5Config
    compute: Compute
    deterministic: bool
    layout: ActivationLayout = ONE_DEVICE

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "rows extended embed"],
        cache: Cache | None,
        slots: Slots,
        position: Int[Array, ""],
        encoder_outputs: Float[Array, "batch source embed"],
        self_bias: Float[Array, "#rows heads extended length"],
        cross_bias: Float[Array, "batch 1 1 keys"],
    ) -> tuple[Float[Array, "rows extended embed"], Cache | None]:
        """Returns the next `x` and the cache with this step's keys and values written into it.

        Without a cache, `x` is the decoder's prompt and the whole target. With one, it starts at
        `position`.
        """
        options = {
            "config": self.config,
            "compute": self.compute,
            "deterministic": self.deterministic,
        }
        x = self.layout.constrain(x, (BATCH, TARGET, EMBED))
        attention = Attention(**options, name="self_attention")
        block_slots = slots.submodule("self_attention")
        normed = RMSNorm(self.config, self.compute, name="pre_self_attention_layer_norm")(x)
        self_kv = attention.keys_and_values(normed, block_slots)
        if cache is None:
            self_kv = slots.prefixed("self_attention", self_kv)
        else:
            # Writes this step's [rows, heads, extended, head_dim] at `position` of the cache.
            self_kv = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=2),
                cache.self_kv,
                self_kv,
            )
        attended = attention(normed, self_kv, self_bias, slots=block_slots)
        x += dropout(self, slots.with_bottleneck("self_attention", attended))

        attention = Attention(**options, name="encoder_decoder_attention")
        block_slots = slots.submodule("encoder_decoder_attention")
        normed = RMSNorm(self.config, self.compute, name="pre_cross_attention_layer_norm")(x)
        queries = x.shape[0] // encoder_outputs.shape[0] * x.shape[1]
        has_prefix = "encoder_decoder_attention" in slots.prefixes
        if cache is None and not has_prefix and attention.folds(queries, block_slots):
            attended = attention.folded(normed, encoder_outputs, cross_bias, slots=block_slots)
        else:
            if cache is None:
                cross_kv = attention.keys_and_values(encoder_outputs, block_slots)
                cross_kv = slots.prefixed("encoder_decoder_attention", cross_kv)
            else:  # computed once, by `T5.start_cache`
                cross_kv = cache.cross_kv
            attended = attention(normed, cross_kv, cross_bias, slots=block_slots)
        x += dropout(self, slots.with_bottleneck("encoder_decoder_attention", attended))

        normed = RMSNorm(self.config, self.compute, name="pre_mlp_layer_norm")(x)
        mlp_output = MLP(**options, name="mlp")(normed, slots.submodule("mlp"))
        x += dropout(self, slots.with_bottleneck("mlp", mlp_output))
        return x, None if cache is None else Cache(self_kv=self_kv, cross_kv=cross_kv)


def _stack(layer: type[nn.Module], compute: Compute, length: int, in_axes: Any) -> Any:
    """Returns `layer` scanned over `length` layers with stacked parameters."""
    if compute.remat is True:
        # Within a loop XLA can't merge the recomputation with the forward pass, so barriers
        # against it (`prevent_cse`) would only cost time.
        layer = nn.remat(layer, prevent_cse=False)
    return nn.scan(
        layer,
        variable_axes={"params": 0, "intermediates": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=in_axes,
        length=length,
        unroll=compute.unroll or length,
    )


class Encoder(nn.Module):
    """The encoder's layers and its final norm."""

    config: T5Config
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
        config = self.config
        options = {"config": config, "compute": self.compute, "deterministic": deterministic}
        mask = with_prefix_mask(mask, injection, "encoder/attention")
        target, source = x.shape[1], mask.shape[1]
        first = target - source  # the position of the first key; a prefix's are negative
        relpos_bias = RelativePositionBias(
            config, self.compute, bidirectional=True, name="relpos_bias"
        )
        # The kernel has no dropout, and shows no weights to callers who request them.
        flash = (
            self.compute.attention == "flash"
            and (deterministic or not self.compute.dropout_rate)
            and not self.is_mutable_collection("intermediates")
        )
        if flash:
            by_distance = relpos_bias(first + jnp.arange(1 - target, source))
            position_bias = bias_tables(by_distance, target, source)
        else:
            keys = first + jnp.arange(source)
            position_bias = relpos_bias(keys[None, :] - jnp.arange(target)[:, None])
        dropped = _Dropout(**options)
        layers = _stack(
            EncoderLayer, self.compute, config.num_encoder_layers, (0, nn.broadcast, nn.broadcast)
        )
        x, _ = layers(**options, flash=flash, layout=self.layout, name="layers")(
            dropped(x), injection.layers("encoder"), position_bias, mask
        )
        x = self.layout.constrain(x, (BATCH, SOURCE, EMBED))
        return dropped(RMSNorm(config, self.compute, name="encoder_norm")(x))


class Decoder(nn.Module):
    """The decoder's layers, its final norm and the output layer, unless it is tied."""

    config: T5Config
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
        """Returns logits (or the last hidden layer, if tied) and the next cache, if one was given.

        Without a cache, `x` is the decoder's prompt and the whole target, and the result is for the
        target only. With one, `x` starts at `position`, counting the prompt.
        """
        config, injection = self.config, encoded.injection
        options = {"config": config, "compute": self.compute, "deterministic": deterministic}
        prefix = injection.prefix_length("decoder/self_attention")
        position += prefix  # the prefix's keys come first, also in the cache
        queries = position + jnp.arange(x.shape[1])
        keys = jnp.arange(prefix + x.shape[1] if cache is None else cache.self_kv.key.shape[3])
        position_bias = RelativePositionBias(
            config, self.compute, bidirectional=False, name="relpos_bias"
        )(keys[None, :] - queries[:, None])
        # Causal: [1 or rows, heads, target, keys].
        self_bias = (position_bias + mask_bias(keys[None, :] <= queries[:, None]))[None]
        visible = visible_decoder_keys(injection, len(keys))
        if visible is not None:
            self_bias += repeat_per_row(mask_bias(visible)[:, None, None, :], x.shape[0])
        cross_mask = with_prefix_mask(encoded.mask, injection, "decoder/encoder_decoder_attention")
        dropped = _Dropout(**options)
        layers = _stack(
            DecoderLayer, self.compute, config.num_decoder_layers, (0, 0, *(nn.broadcast,) * 4)
        )
        x, advanced = layers(**options, layout=self.layout, name="layers")(
            dropped(x),
            cache,
            injection.layers("decoder"),
            position,
            encoded.outputs,
            self_bias,
            mask_bias(cross_mask)[:, None, None, :],
        )
        if cache is None:
            x = x[:, injection.decoder_prompt_length :]
        x = self.layout.constrain(x, (BATCH, TARGET, EMBED))
        x = dropped(RMSNorm(config, self.compute, name="decoder_norm")(x))
        if not config.tie_embeddings:
            x = Projection(
                compute=self.compute,
                spec="btd,dv->btv",
                shape=(config.embed_dim, config.vocab_size),
                stddev=config.embed_dim**-0.5,
                name="logits_dense",
            )(x)
        return x, advanced


class _Dropout(nn.Module):
    """`dropout` as a module, for callers that receive `deterministic` as an argument."""

    config: T5Config
    compute: Compute
    deterministic: bool

    def __call__(self, x: Array) -> Array:
        return dropout(self, x)


class T5(nn.Module):
    """The T5 encoder-decoder.

    A batch is a mapping with SeqIO's names: `encoder_input_tokens` [batch, source],
    `decoder_input_tokens` [batch, target] and the loss's features. Padding has id 0.

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
        """Returns the encoder's outputs, those of the prompt first.

        Raises:
          ValueError: the injection still contains weights, which `injected` must put in place.
        """
        if injection.weights:
            raise ValueError(
                "The injection contains weights; first replace the frozen ones by them: "
                "variables, injection = injected(frozen, injection)."
            )
        embedded = self.token_embedder(encoder_input_tokens)
        mask = encoder_input_tokens != self.config.pad_id
        embedded, mask = add_prompt(embedded, mask, injection)
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
        embedded = self.token_embedder(decoder_input_tokens)
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
        config = self.config
        shape = (config.num_decoder_layers, rows, config.num_heads, length, config.head_dim)
        zeros = jnp.zeros(shape, jnp.dtype(self.compute.product_dtype))
        return jax.vmap(lambda slots, kv: slots.prefixed("self_attention", kv))(
            slots, KeyValue(key=zeros, value=zeros)
        )

    def _cross_kv(self, outputs: Float[Array, "batch source embed"], slots: Slots) -> KeyValue:
        """Returns every decoder layer's keys and values of the encoder's outputs."""
        config = self.config
        name = "encoder_decoder_attention"
        # Unbound, to be applied to one layer of the stacked parameters at a time.
        attention = Attention(config=config, compute=self.compute, deterministic=True, parent=None)
        stacked = self.variables["params"]["decoder"]["layers"][name]
        projections = {module: stacked[module] for module in ("key", "value")}

        def of_layer(_: None, layer: tuple[Params, Slots]) -> tuple[None, KeyValue]:
            params, slots = layer
            cross_kv = attention.apply(
                {"params": params}, outputs, slots.submodule(name), method="keys_and_values"
            )
            return None, slots.prefixed(name, cast(KeyValue, cross_kv))

        length = config.num_decoder_layers
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
        embedded = self.token_embedder(self._started(tokens[:, None], position))
        position = position + encoded.injection.decoder_prompt_length
        hidden, advanced = self.decoder(embedded, encoded, True, cache, position)
        return self._logits(hidden)[:, 0], cast(Cache, advanced)

    @nn.nowrap
    def prepared_for_loop(
        self, variables: Mapping[str, Params], cross_kv: KeyValue
    ) -> Callable[[], tuple[dict[str, Params], KeyValue]]:
        """Returns a function that rebuilds both arguments inside the body of a decoding loop.

        Unrolled layers read a slice of each stacked array, which XLA on CPUs would copy in every
        iteration. So arrays are sliced before the loop and stacked inside, where XLA removes the
        slicing of a stack.
        """
        params = dict(variables["params"])
        if self.compute.unroll:
            return lambda: ({"params": params}, cross_kv)
        stacked = (params["decoder"]["layers"], cross_kv)
        slices = [
            jax.tree.map(lambda x, layer=layer: x[layer], stacked)
            for layer in range(self.config.num_decoder_layers)
        ]

        def prepared() -> tuple[dict[str, Params], KeyValue]:
            layers, cross_kv = jax.tree.map(lambda *each: jnp.stack(each), *slices)
            decoder = {**params["decoder"], "layers": layers}
            return {"params": {**params, "decoder": decoder}}, cross_kv

        return prepared

    def _started(
        self, tokens: Int[Array, "rows target"], position: Int[Array, ""]
    ) -> Int[Array, "rows target"]:
        """Returns the tokens, which start at `position`, with the start token at position 0."""
        if self.config.start_id == self.config.pad_id:  # already there
            return tokens
        positions = position + jnp.arange(tokens.shape[1])
        return jnp.where(positions == 0, self.config.start_id, tokens)

    def _logits(self, x: Float[Array, "rows target features"]) -> Array:
        return self.token_embedder.attend(x) if self.config.tie_embeddings else x
