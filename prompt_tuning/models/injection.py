"""The interface between methods and the model.

A method turns its trainable parameters into an `Injection`, and the model reads the slots that are
filled. Neither imports the other. A new way to change the model is a new field here and code in the
model that reads it. Add the field to `stacking.py`, which batches injections; also to `slots.py` if
layers read it, and to `merging.py` if it can be merged into the weights. `targets.py` lists the
projections of a model.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from prompt_tuning.errors import UserError
from prompt_tuning.models.prompt_mixture import PromptMixture, RoutedPrompts
from prompt_tuning.models.slots import (
    AnyArray,
    Bottleneck,
    GatedPrompt,
    KeyValue,
    LowRank,
    Slots,
)

__all__ = [
    "Bottleneck",
    "GatedPrompt",
    "Injection",
    "KeyValue",
    "LowRank",
    "PromptMixture",
    "RoutedPrompts",
    "add_prompt",
    "encoder_sight",
    "injected",
    "prepend_decoder_prompt",
    "visible_decoder_keys",
    "with_prefix_mask",
]

Params = dict[str, Any]

ROUTER = "router"
"""The stream of random numbers for the noise of `RoutedPrompts` in training."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class Injection:
    """Everything a method adds to the frozen model; every slot is optional.

    With a batch axis of 1, all examples share the values; with one of `batch`, each has its own.
    Keys of the mappings are "STACK/MODULE", with STACK "encoder" or "decoder" and MODULE as in
    `slots.py`; their arrays are [layer, batch or 1, ...].

    Attributes:
      encoder_prompt: vectors prepended to the encoder's embedded input (Lester et al., 2021).
      encoder_prompt_mask: False where a shorter prompt of a mixed batch is padded; None if every
        position is visible. The same holds for the other masks.
      encoder_prompt_mixture: instead of `encoder_prompt`, parts that the model mixes into a prompt
        for each input (Asai et al., 2022), or prompts of which it picks one (Choi et al., 2023).
      encoder_prompt_attention: which positions see which in the encoder's self-attention, the
        virtual tokens in order and last the input's tokens as one. All see all if None.
      encoder_update: vectors added by position to the input's embeddings (Shi & Lipani, 2024), of
        which those beyond the last vector are unchanged.
      encoder_suffix: vectors inserted right after each input's last token.
      encoder_suffix_mask: its mask.
      decoder_prompt: vectors prepended to the decoder's embedded input.
      decoder_prompt_mask: its mask.
      prefixes: keys and values prepended in an attention block (Li & Liang, 2021). In
        self-attention their positions are just before the sequence.
      prefix_masks: masks of some prefixes, by the same names, [batch or 1, prefix].
      gated_prompts: vectors to which attention blocks attend in a softmax of their own (Zhang et
        al., 2023), by the name BLOCK/prompt.
      low_rank: additions to projections (LoRA; Hu et al., 2021), with magnitudes in DoRA.
      scales: factors of modules' outputs (IA3; Liu et al., 2022).
      bottlenecks: additions to blocks' outputs (adapters; Houlsby et al., 2019).
      weights: parameters that replace frozen ones, by "/"-joined name. They have no batch axis.
    """

    encoder_prompt: Float[AnyArray, "#batch prompt embed"] | None = None
    encoder_prompt_mask: Bool[AnyArray, "#batch prompt"] | None = None
    encoder_prompt_mixture: PromptMixture | RoutedPrompts | None = None
    encoder_prompt_attention: Bool[AnyArray, "#batch queries queries"] | None = None
    encoder_update: Float[AnyArray, "#batch update embed"] | None = None
    encoder_suffix: Float[AnyArray, "#batch suffix embed"] | None = None
    encoder_suffix_mask: Bool[AnyArray, "#batch suffix"] | None = None
    decoder_prompt: Float[AnyArray, "#batch decoder_prompt embed"] | None = None
    decoder_prompt_mask: Bool[AnyArray, "#batch decoder_prompt"] | None = None
    prefixes: Mapping[str, KeyValue] = field(default_factory=dict)
    prefix_masks: Mapping[str, Bool[AnyArray, "..."]] = field(default_factory=dict)
    gated_prompts: Mapping[str, GatedPrompt] = field(default_factory=dict)
    low_rank: Mapping[str, LowRank] = field(default_factory=dict)
    scales: Mapping[str, Float[AnyArray, "..."]] = field(default_factory=dict)
    bottlenecks: Mapping[str, Bottleneck] = field(default_factory=dict)
    weights: Mapping[str, AnyArray] = field(default_factory=dict)

    def layers(self, stack: str) -> Slots:
        """Returns the slots of the layers of the "encoder" or the "decoder"."""
        return Slots(
            prefixes=self.prefixes,
            gated_prompts=self.gated_prompts,
            low_rank=self.low_rank,
            scales=self.scales,
            bottlenecks=self.bottlenecks,
        ).submodule(stack)

    def prefix_length(self, name: str) -> int:
        """Returns the number of keys prepended in an attention block."""
        return self.prefixes[name].key.shape[3] if name in self.prefixes else 0

    def prefix_mask(self, name: str) -> Bool[AnyArray, "#batch prefix"]:
        """Returns which of these keys are visible."""
        mask = self.prefix_masks.get(name)
        return jnp.ones((1, self.prefix_length(name)), bool) if mask is None else mask

    @property
    def encoder_prompt_length(self) -> int:
        """The number of positions before the encoder's input."""
        if self.encoder_prompt_mixture is not None:
            return self.encoder_prompt_mixture.length
        return 0 if self.encoder_prompt is None else self.encoder_prompt.shape[1]

    @property
    def encoder_suffix_length(self) -> int:
        """The number of positions after each of the encoder's inputs."""
        return 0 if self.encoder_suffix is None else self.encoder_suffix.shape[1]

    @property
    def decoder_prompt_length(self) -> int:
        """The number of positions of the decoder's prompt."""
        return 0 if self.decoder_prompt is None else self.decoder_prompt.shape[1]


def add_prompt(
    embedded: Float[Array, "batch source embed"],
    mask: Bool[Array, "batch source"],
    injection: Injection,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, "batch extended embed"], Bool[Array, "batch extended"]]:
    """Returns `[P; X]`, or `[P; X; S]`, and its mask; X with its update, if there is one.

    The prompt is at positions 0 to p-1 (section 2 of the paper), a suffix right after the input's
    last token, before any padding. Relative positions count the prompt and the suffix.

    Args:
      embedded: the embedded input.
      mask: False for its padding.
      injection: all of its slots but the encoder's prompts and update are ignored.
      key: for the noise of a mixture; None for none.

    Raises:
      ValueError: the injection still contains weights, which `injected` must put in place.
    """
    if injection.weights:
        raise ValueError(
            "The injection contains weights; first replace the frozen ones by them: "
            "variables, injection = injected(frozen, injection)."
        )
    if injection.encoder_update is not None:
        length = embedded.shape[1]
        update = injection.encoder_update[:, :length]
        update = jnp.pad(update, ((0, 0), (0, length - update.shape[1]), (0, 0)))
        embedded += update.astype(embedded.dtype)
    parts = [(embedded, mask)]
    prompt, mixture = injection.encoder_prompt, injection.encoder_prompt_mixture
    if mixture is not None:
        if prompt is not None:
            raise ValueError("Give an encoder prompt or a mixture that computes one, not both.")
        prompt = mixture.prompt(embedded, mask, key)
    if prompt is not None:
        parts.insert(0, _broadcast_to_batch(prompt, injection.encoder_prompt_mask, parts[0]))
    if injection.encoder_suffix is not None:
        parts.append(
            _broadcast_to_batch(injection.encoder_suffix, injection.encoder_suffix_mask, parts[-1])
        )
    if len(parts) == 1:
        return embedded, mask
    embedded, mask = (jnp.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    if injection.encoder_suffix is None:
        return embedded, mask
    # A stable sort moves padding behind the suffix and keeps the order of visible positions.
    order = jnp.argsort(~mask, axis=1, stable=True)
    return (
        jnp.take_along_axis(embedded, order[..., None], axis=1),
        jnp.take_along_axis(mask, order, axis=1),
    )


def prepend_decoder_prompt(
    embedded: Float[Array, "rows target embed"], injection: Injection
) -> Float[Array, "rows extended embed"]:
    """Returns the decoder's embedded input with the prompt prepended, if there is one."""
    prompt = injection.decoder_prompt
    if prompt is None:
        return embedded
    if prompt.shape[-1] != embedded.shape[-1]:
        raise UserError(
            f"The decoder's prompt is {prompt.shape[-1]} wide, but its embeddings are "
            f"{embedded.shape[-1]}; this model has no prompts in the decoder."
        )
    prompt = jnp.repeat(prompt, embedded.shape[0] // prompt.shape[0], axis=0)
    return jnp.concatenate([prompt.astype(embedded.dtype), embedded], axis=1)


def with_prefix_mask(
    mask: Bool[Array, "batch source"], injection: Injection, name: str
) -> Bool[Array, "batch keys"]:
    """Returns which keys of an attention block are visible, those of its prefix first."""
    if name not in injection.prefixes:
        return mask
    before = injection.prefix_mask(name)
    before = jnp.broadcast_to(before, (mask.shape[0], before.shape[1]))
    return jnp.concatenate([before, mask], axis=1)


def encoder_sight(
    mask: Bool[Array, "batch source"], injection: Injection
) -> Bool[Array, "batch #target keys"]:
    """Returns which keys each position of the encoder's self-attention sees, a prefix's first."""
    seen = with_prefix_mask(mask, injection, "encoder/attention")[:, None]
    allowed = injection.encoder_prompt_attention
    if allowed is None:
        return seen
    kinds = jnp.minimum(jnp.arange(mask.shape[1]), allowed.shape[1] - 1)
    allowed = jnp.asarray(allowed)[:, kinds][:, :, kinds]
    before = ((0, 0), (0, 0), (seen.shape[2] - mask.shape[1], 0))
    return seen & jnp.pad(allowed, before, constant_values=True)


def visible_decoder_keys(injection: Injection, keys: int) -> Bool[Array, "#batch keys"] | None:
    """Returns which keys of decoder self-attention aren't masked, or None if all are visible."""
    name = "decoder/self_attention"
    prompt = injection.decoder_prompt_mask
    if prompt is None and name not in injection.prefix_masks:
        return None
    if prompt is None:
        prompt = jnp.ones((1, injection.decoder_prompt_length), bool)
    prefix = injection.prefix_mask(name)
    batch = max(len(prefix), len(prompt))
    before = [jnp.broadcast_to(mask, (batch, mask.shape[1])) for mask in (prefix, prompt)]
    visible = jnp.concatenate(before, axis=1)
    missing = keys - visible.shape[1]  # the target's keys; the causal mask handles them
    return jnp.pad(visible, ((0, 0), (0, missing)), constant_values=True)


def injected(frozen: Params, injection: Injection) -> tuple[dict[str, Params], Injection]:
    """Returns a model's variables and its injection argument; every injection passes through here.

        variables, injection = injected(frozen, injection)
        logits = model.apply(variables, batch, injection)

    The injection's `weights` replace the frozen parameters of the same names; the returned
    injection contains the other slots.

    Raises:
      ValueError: a weight has the name of no parameter, or another shape.
    """
    params = _with_weights(frozen, injection) if injection.weights else frozen
    return {"params": params}, dataclasses.replace(injection, weights={})


def _with_weights(frozen: Params, injection: Injection) -> Params:
    unused = set(injection.weights)

    def replaced(path: tuple[Any, ...], leaf: Array) -> Array:
        name = "/".join(str(key.key) for key in path)
        weight = injection.weights.get(name)
        if weight is None:
            return leaf
        unused.discard(name)
        if weight.shape != leaf.shape:
            raise ValueError(f"{name} has shape {weight.shape}; the model's is {leaf.shape}.")
        return weight

    params = jax.tree_util.tree_map_with_path(replaced, frozen)
    if unused:
        raise ValueError(f"The model has no parameters named {sorted(unused)}.")
    return params


def _broadcast_to_batch(
    vectors: Float[AnyArray, "#batch length embed"],
    mask: Bool[AnyArray, "#batch length"] | None,
    beside: tuple[Float[Array, "batch source embed"], Bool[Array, "batch source"]],
) -> tuple[Float[Array, "batch length embed"], Bool[Array, "batch length"]]:
    """Broadcasts vectors and their mask to the batch of `beside`."""
    batch, _, embed_dim = beside[0].shape
    length = vectors.shape[1]
    mask = jnp.ones((1, length), bool) if mask is None else mask
    vectors = jnp.broadcast_to(vectors, (batch, length, embed_dim)).astype(beside[0].dtype)
    return vectors, jnp.broadcast_to(mask, (batch, length))
