"""The share of the model's attention on a prompt, by layer.

The model returns its attention weights as Flax's "intermediates", with teacher forcing. The
compiled program sums them, but needs memory for the weights of all layers: use small batches.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import Batch
from prompt_tuning.models.encoder_decoder import FrozenModel
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptAttention:
    """Shares of attention on each prompt position: means over heads, queries, then examples.

    The sum over `prompt` is a layer's share on the whole prompt, in [0, 1].

    Attributes:
      encoder_inputs: of the encoder's self-attention, with the input's queries.
      encoder_prompt: of the encoder's self-attention, with the prompt's queries.
      decoder: of cross-attention, with the target's queries.
      even: the share on the whole prompt if attention were uniform over visible positions.
    """

    encoder_inputs: Float[np.ndarray, "encoder_layer prompt"]
    encoder_prompt: Float[np.ndarray, "encoder_layer prompt"]
    decoder: Float[np.ndarray, "decoder_layer prompt"]
    even: float


def prompt_attention(
    model: FrozenModel,
    frozen: Params,
    prompt: Float[np.ndarray, "prompt embed"],
    batches: Iterable[Batch],
) -> PromptAttention:
    """Measures the attention on a prompt over batches of inputs and targets.

    Args:
      model: the frozen model.
      frozen: its weights.
      prompt: a soft prompt before the encoder's input.
      batches: "encoder_input_tokens", "decoder_input_tokens" and "decoder_loss_weights"; target
        positions without weight don't count, nor do rows without any.

    Raises:
      UserError: there is no example.
    """
    injection = Injection(encoder_prompt=jnp.asarray(prompt)[None])
    totals: Any = None
    for batch in batches:
        sums = _sums(model, frozen, injection, {name: jnp.asarray(x) for name, x in batch.items()})
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
        totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
    if totals is None:
        raise UserError("There are no examples to measure attention on: the split is empty.")
    *shares, (even, examples) = totals
    encoder_inputs, encoder_prompt, decoder = (total / count for total, count in shares)
    return PromptAttention(
        encoder_inputs=encoder_inputs,
        encoder_prompt=encoder_prompt,
        decoder=decoder,
        even=float(even / examples),
    )


Sum = tuple[Array, Array]
"""A sum and the number of its terms."""


@functools.partial(jax.jit, static_argnames=("model",))
def _sums(
    model: FrozenModel, frozen: Params, injection: Injection, batch: Batch
) -> tuple[Sum, Sum, Sum, Sum]:
    prompt = injection.encoder_prompt
    assert prompt is not None
    length = prompt.shape[1]
    _, state = model.apply({"params": frozen}, batch, injection, mutable=["intermediates"])
    stacks: Any = state["intermediates"]
    # [layer, batch, heads, queries, keys]; the prompt's keys come first.
    if "encoder" in stacks:
        (encoder,) = stacks["encoder"]["layers"]["attention"]["weights"]
        (decoder,) = stacks["decoder"]["layers"]["encoder_decoder_attention"]["weights"]
    else:  # of the input, then of the targets
        encoder, decoder = stacks["decoder"]["layers"]["self_attention"]["weights"]

    visible = jnp.asarray(batch["encoder_input_tokens"]) != model.config.pad_id
    targets = jnp.asarray(batch["decoder_loss_weights"]) > 0
    real = jnp.any(targets, axis=1)
    rows = real[:, None]
    in_prompt = jnp.broadcast_to(rows, (len(real), length))
    even = length / (length + jnp.sum(visible, axis=1))
    return (
        _on_prompt(encoder[..., length:, :length], visible & rows),
        _on_prompt(encoder[..., :length, :length], in_prompt),
        _on_prompt(decoder[..., :length], targets),
        (jnp.sum(even, where=real), jnp.sum(real)),
    )


def _on_prompt(
    weights: Float[Array, "layer batch heads queries prompt"], counted: Bool[Array, "batch queries"]
) -> Sum:
    """Averages over heads and counted queries, then sums over examples."""
    by_query = weights.astype(jnp.float32).mean(axis=2)  # [layer, batch, queries, prompt]
    count = jnp.sum(counted, axis=1, keepdims=True)
    share = counted / jnp.maximum(count, 1)
    return jnp.einsum("lbqp,bq->lp", by_query, share), jnp.sum(count > 0)
