"""The encoder and the decoder of T5: pre-norm layers, stacked and scanned.

`t5.py` joins them to a model; `attention.py` and `layers.py` have their parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from prompt_tuning.axes import BATCH, EMBED, SOURCE, TARGET
from prompt_tuning.models.activation_layout import ONE_DEVICE, ActivationLayout
from prompt_tuning.models.attention import Attention, RelativePositionBias, mask_bias
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import ModelConfig, T5Config
from prompt_tuning.models.flash_attention import bias_tables
from prompt_tuning.models.injection import (
    Injection,
    encoder_sight,
    visible_decoder_keys,
    with_prefix_mask,
)
from prompt_tuning.models.layers import MLP, Projection, RMSNorm, dropout
from prompt_tuning.models.slots import KeyValue, Slots, repeat_per_row


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

    def written(self, step: KeyValue, position: Int[Array, ""]) -> KeyValue:
        """Returns a layer's `self_kv` with `step` written into it from `position` on.

        Args:
          step: [rows, heads, extended, head_dim].
          position: counting an injected prefix.
        """
        return jax.tree.map(
            lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=2),
            self.self_kv,
            step,
        )


@runtime_checkable
class FrozenModel(Protocol):
    """The module of any family; generation, ranking and training use nothing else of a model."""

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        ...

    @property
    def compute(self) -> Compute:
        """Numerics and memory options."""
        ...

    def clone(self, *, parent: Any = ..., **fields: Any) -> Any:
        """Returns the module with other fields."""
        ...

    def apply(self, variables: Mapping[str, Any], *args: Any, **options: Any) -> Any:
        """Calls `__call__`, or the given `method`: `encode`, `decode` and the others."""
        ...

    def encode(
        self,
        encoder_input_tokens: Int[Array, "batch source"],
        injection: Injection = Injection(),
        *,
        deterministic: bool = True,
    ) -> Encoded:
        """Returns the encoder's outputs, those of the prompt first."""
        ...

    def decode(
        self,
        encoded: Encoded,
        decoder_input_tokens: Int[Array, "rows target"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "rows target vocab"]:
        """Returns logits for targets, shifted right; the model puts its start token first."""
        ...

    def start_cache(self, encoded: Encoded, rows: int, length: int) -> Cache:
        """Returns the cache of `rows` targets of at most `length` tokens."""
        ...

    def decode_step(
        self, encoded: Encoded, tokens: Int[Array, "rows"], cache: Cache, position: Int[Array, ""]
    ) -> tuple[Float[Array, "rows vocab"], Cache]:
        """Returns logits for the token after `tokens` at `position`, and the next cache."""
        ...


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
        positions: Array,
        seen: Bool[Array, "batch #source keys"],
    ) -> tuple[Float[Array, "batch source embed"], None]:
        """Returns the next `x`, and None since `nn.scan` expects a second result.

        `positions` is what `_encoder_bias` returns, or its argument if each layer has a bias.
        """
        options = {
            "config": self.config,
            "compute": self.compute,
            "deterministic": self.deterministic,
        }
        x = self.layout.constrain(x, (BATCH, SOURCE, EMBED))
        attention = Attention(**options, name="attention")
        block_slots = slots.submodule("attention")
        position_bias = positions
        if self.config.bias_per_layer:
            lengths = (x.shape[1], seen.shape[2])
            position_bias = _encoder_bias(self, positions, lengths if self.flash else None)
        normed = RMSNorm(self.config, self.compute, self.layout, name="pre_attention_layer_norm")(x)
        # [batch, heads, prefix + source, head_dim]
        keys_values = slots.prefixed("attention", attention.keys_and_values(normed, block_slots))
        if self.flash:
            attended = attention.flash(
                normed,
                keys_values,
                position_bias,
                seen[:, 0],
                layout=self.layout,
                slots=block_slots,
            )
        else:
            biases = (position_bias, mask_bias(seen)[:, None])
            attended = attention(normed, keys_values, *biases, slots=block_slots)
        x += dropout(self, slots.with_bottleneck("attention", attended))

        normed = RMSNorm(self.config, self.compute, self.layout, name="pre_mlp_layer_norm")(x)
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
        positions: Int[Array, "extended length"] | None,
        self_bias: Float[Array, "#rows #heads extended length"],
        cross_bias: Float[Array, "batch 1 1 keys"],
    ) -> tuple[Float[Array, "rows extended embed"], Cache | None]:
        """Returns the next `x` and the cache with this step's keys and values written into it.

        Without a cache, `x` is the decoder's prompt and the whole target. With one, it starts at
        `position`. If `self_bias` lacks the position bias, the layer's own is that of the relative
        `positions`.
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
            self_kv = cache.written(self_kv, position)
        if positions is not None:
            self_bias += _decoder_bias(self, positions)
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


def _encoder_bias(
    module: Any, relative_position: Int[Array, "..."], lengths: tuple[int, int] | None
) -> Float[Array, "heads ..."]:
    """Returns the position bias of an encoder layer, from the module's parameters.

    Args:
      module: a layer, or the encoder if all layers have the same bias.
      relative_position: of keys to queries, [queries, keys]; or all distances, for flash.
      lengths: the numbers of queries and keys, for the tables of flash attention.
    """
    bias = RelativePositionBias(
        module.config, module.compute, bidirectional=True, name="relpos_bias"
    )(relative_position)
    return bias_tables(bias, *lengths) if lengths else bias


def _decoder_bias(
    module: Any, relative_position: Int[Array, "queries keys"]
) -> Float[Array, "heads queries keys"]:
    """Returns the same of a decoder layer, or of the decoder."""
    return RelativePositionBias(
        module.config, module.compute, bidirectional=False, name="relpos_bias"
    )(relative_position)


def stacked(layer: type[nn.Module], compute: Compute, length: int, in_axes: Any) -> Any:
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
        seen = encoder_sight(mask, injection)
        target, source = x.shape[1], seen.shape[2]
        first = target - source  # the position of the first key; a prefix's are negative
        # The kernel has one mask for all queries and no dropout, and shows no weights to callers
        # who request them.
        flash = (
            self.compute.attention == "flash"
            and seen.shape[1] == 1
            and (deterministic or not self.compute.dropout_rate)
            and not self.is_mutable_collection("intermediates")
        )
        if flash:
            positions = first + jnp.arange(1 - target, source)
        else:
            positions = first + jnp.arange(source)[None, :] - jnp.arange(target)[:, None]
        if not config.bias_per_layer:
            positions = _encoder_bias(self, positions, (target, source) if flash else None)
        dropped = Dropout(self.compute, deterministic)
        layers = stacked(
            EncoderLayer, self.compute, config.num_encoder_layers, (0, nn.broadcast, nn.broadcast)
        )
        x, _ = layers(**options, flash=flash, layout=self.layout, name="layers")(
            dropped(x), injection.layers("encoder"), positions, seen
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
        positions = keys[None, :] - queries[:, None]
        # Causal: [1 or rows, heads or 1, target, keys].
        self_bias = mask_bias(positions <= 0)[None, None]
        if not config.bias_per_layer:
            self_bias += _decoder_bias(self, positions)
        visible = visible_decoder_keys(injection, len(keys))
        if visible is not None:
            self_bias += repeat_per_row(mask_bias(visible)[:, None, None, :], x.shape[0])
        cross_mask = with_prefix_mask(encoded.mask, injection, "decoder/encoder_decoder_attention")
        dropped = Dropout(self.compute, deterministic)
        layers = stacked(
            DecoderLayer, self.compute, config.num_decoder_layers, (0, 0, *(nn.broadcast,) * 5)
        )
        x, advanced = layers(**options, layout=self.layout, name="layers")(
            dropped(x),
            cache,
            injection.layers("decoder"),
            position,
            encoded.outputs,
            positions if config.bias_per_layer else None,
            self_bias,
            mask_bias(cross_mask)[:, None, None, :],
        )
        if cache is None:
            x = x[:, injection.decoder_prompt_length :]
        x = dropped(RMSNorm(config, self.compute, name="decoder_norm")(x))
        return with_output_layer(self, x), advanced


def with_output_layer(decoder: Any, x: Float[Array, "rows target embed"]) -> Array:
    """Returns a decoder's logits, or `x` unchanged if the output layer is the embedding table."""
    x = decoder.layout.constrain(x, (BATCH, TARGET, EMBED))
    if decoder.config.tie_embeddings:
        return x
    return Projection(
        compute=decoder.compute,
        spec="btd,dv->btv",
        shape=(x.shape[-1], decoder.config.vocab_size),
        stddev=x.shape[-1] ** -0.5,
        name="logits_dense",
    )(x)


class Dropout(nn.Module):
    """`dropout` as a module, for callers that receive `deterministic` as an argument."""

    compute: Compute
    deterministic: bool

    def __call__(self, x: Array) -> Array:
        return dropout(self, x)
