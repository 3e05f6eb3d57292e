"""Rank classification: chooses the label that is likeliest given the input.

A label's score is the log-likelihood of its whole token sequence, end of sequence included, as a
target. Nothing is generated, so the answer is always one of the labels. The encoder runs once per
example: labels are additional rows of the decoder's batch only. They are scored in blocks, so that
memory doesn't grow with their number.

Two corrections are optional (`RankOptions`), for labels of different lengths or frequencies:

    length normalization   the mean over a label's tokens (Brown et al. 2020, section 2.4)
    calibration            minus the label's score after a content-free input: pointwise mutual
                           information (Holtzman et al. 2021, "Surface form competition"; compare
                           Zhao et al. 2021, "Calibrate before use")
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_tuning.models.encoder_decoder import FrozenModel
from prompt_tuning.models.injection import Injection, injected
from prompt_tuning.models.t5 import Params

LOGIT_BYTES = 512 * 2**20
"""Maximum memory for the float32 logits of a block of labels, unless one label needs more."""


@dataclass(frozen=True, kw_only=True)
class RankOptions:
    """Corrections of labels' log-likelihoods before they are compared.

    Attributes:
      length_normalization: divide by the label's number of tokens, end of sequence included.
      content_free: token ids of an input without content, end of sequence included, whose label
        scores are subtracted; None for no calibration.
    """

    length_normalization: bool = False
    content_free: tuple[int, ...] | None = None


def label_scores(
    model: FrozenModel,
    frozen: Params,
    encoder_input_tokens: Int[Array, "batch source"],
    injection: Injection,
    label_ids: Int[Array, "labels target"],
    options: RankOptions = RankOptions(),
    *,
    logit_bytes: int = LOGIT_BYTES,
) -> Float[Array, "batch labels"]:
    """Returns the labels' scores: `label_log_likelihoods`, corrected according to `options`."""

    def log_likelihoods(tokens: Int[Array, "batch source"]) -> Float[Array, "batch labels"]:
        return label_log_likelihoods(
            model, frozen, tokens, injection, label_ids, logit_bytes=logit_bytes
        )

    scores = log_likelihoods(encoder_input_tokens)
    if options.content_free is not None:
        content_free = jnp.asarray(options.content_free, encoder_input_tokens.dtype)
        # A row for each example, since each may have its own prompt.
        rows = jnp.tile(content_free, (encoder_input_tokens.shape[0], 1))
        scores -= log_likelihoods(rows)
    if options.length_normalization:
        scores /= jnp.sum(label_ids != model.config.pad_id, axis=-1)
    return scores


def label_log_likelihoods(
    model: FrozenModel,
    frozen: Params,
    encoder_input_tokens: Int[Array, "batch source"],
    injection: Injection,
    label_ids: Int[Array, "labels target"],
    *,
    logit_bytes: int = LOGIT_BYTES,
) -> Float[Array, "batch labels"]:
    """Returns each label's log-likelihood in nats, summed over its tokens in float32.

    Args:
      model: the network.
      frozen: its weights.
      encoder_input_tokens: the inputs, padded with the config's `pad_id`.
      injection: the method's, for this batch.
      label_ids: the token ids of each label with its end of sequence, padded with `pad_id`.
      logit_bytes: maximum memory for logits; under `vmap`, per mapped row.
    """
    shape = (encoder_input_tokens.shape[0], *label_ids.shape)
    targets = jnp.broadcast_to(label_ids[None], shape)
    return target_log_likelihoods(
        model, frozen, encoder_input_tokens, injection, targets, logit_bytes=logit_bytes
    )


def target_log_likelihoods(
    model: FrozenModel,
    frozen: Params,
    encoder_input_tokens: Int[Array, "batch source"],
    injection: Injection,
    target_ids: Int[Array, "batch n target"],
    *,
    logit_bytes: int = LOGIT_BYTES,
) -> Float[Array, "batch n"]:
    """Like `label_log_likelihoods`, for n targets per example.

    If logits would exceed `logit_bytes`, targets are scored in blocks of equal size, one after
    another.
    """
    batch, n, length = target_ids.shape
    variables, injection = injected(frozen, injection)
    encoded = model.apply(variables, encoder_input_tokens, injection, method="encode")

    def score(target_ids: Int[Array, "batch block target"]) -> Float[Array, "batch block"]:
        pad_id = model.config.pad_id
        decoder_inputs = jnp.pad(target_ids, ((0, 0), (0, 0), (1, 0)), constant_values=pad_id)
        # `decode` takes several rows per example, which must be consecutive.
        rows = decoder_inputs[..., :-1].reshape(-1, length)
        logits = jnp.asarray(model.apply(variables, encoded, rows, method="decode"))
        logits = logits.reshape(*target_ids.shape, -1).astype(jnp.float32)  # [b, block, t, vocab]
        # `log_softmax` at the targets only: a full one would be as large as the logits.
        highest = jnp.max(logits, axis=-1)
        log_sum = jnp.log(jnp.sum(jnp.exp(logits - highest[..., None]), axis=-1))
        of_targets = jnp.take_along_axis(logits, target_ids[..., None], axis=-1)[..., 0]
        return jnp.sum(of_targets - highest - log_sum, axis=-1, where=target_ids != pad_id)

    size = _block_size(batch, n, length, model.config.vocab_size, logit_bytes)
    if size >= n:
        return score(target_ids)
    blocks = -(-n // size)
    # The last target is repeated to pad the last block.
    filled = jnp.pad(target_ids, ((0, 0), (0, blocks * size - n), (0, 0)), mode="edge")
    by_block = jnp.swapaxes(filled.reshape(batch, blocks, size, length), 0, 1)
    scores = jax.lax.map(score, by_block)
    return jnp.swapaxes(scores, 0, 1).reshape(batch, -1)[:, :n]


def _block_size(batch: int, n: int, length: int, vocab_size: int, logit_bytes: int) -> int:
    """Returns the number of targets per example in a block: the fewest blocks that fit."""
    float32 = 4
    most = max(1, logit_bytes // (batch * length * vocab_size * float32))
    blocks = -(-n // most)
    return -(-n // max(1, blocks))
