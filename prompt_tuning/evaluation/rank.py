"""Rank classification: the label that the model finds likeliest, given the input.

Each label is scored by the log-likelihood of its whole token sequence, end of sequence included,
as a target, not divided by its length; nothing is generated, so the answer is always one of the
labels. The encoder runs once for an example however many labels there are: only the decoder sees
them, as so many more rows of its batch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.models.t5 import T5, Params


def label_log_likelihoods(
    model: T5,
    frozen: Params,
    encoder_input_tokens: Int[Array, "batch source"],
    injection: Injection,
    label_ids: Int[Array, "labels target"],
) -> Float[Array, "batch labels"]:
    """Returns the log-likelihood in nats, summed in float32 over each label's tokens.

    Args:
      model: the network.
      frozen: its weights.
      encoder_input_tokens: the inputs; padding has the config's `pad_id`.
      injection: what a method adds for this batch.
      label_ids: the token ids of each label with its end of sequence, padded with `pad_id`.
    """
    shape = (encoder_input_tokens.shape[0], *label_ids.shape)
    targets = jnp.broadcast_to(label_ids[None], shape)
    return target_log_likelihoods(model, frozen, encoder_input_tokens, injection, targets)


def target_log_likelihoods(
    model: T5,
    frozen: Params,
    encoder_input_tokens: Int[Array, "batch source"],
    injection: Injection,
    target_ids: Int[Array, "batch n target"],
) -> Float[Array, "batch n"]:
    """As `label_log_likelihoods`, for n targets of each example's own."""
    batch, n, _ = target_ids.shape
    variables, injection = injected(frozen, injection)
    encoded = model.apply(variables, encoder_input_tokens, injection, method=T5.encode)

    pad_id = model.config.pad_id
    decoder_inputs = jnp.pad(target_ids, ((0, 0), (0, 0), (1, 0)), constant_values=pad_id)
    # `decode` takes n rows an example, those of the same example together.
    rows = decoder_inputs[..., :-1].reshape(batch * n, -1)
    logits = jnp.asarray(model.apply(variables, encoded, rows, method=T5.decode))
    logits = logits.reshape(batch, n, *logits.shape[1:])

    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    of_targets = jnp.take_along_axis(log_probabilities, target_ids[..., None], axis=-1)[..., 0]
    return jnp.sum(of_targets, axis=-1, where=target_ids != pad_id)
