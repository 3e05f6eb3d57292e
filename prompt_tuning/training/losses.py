"""Token cross-entropy in float32, as a sum and the sum of weights to divide it by.

Sums, not means: microbatches and devices have different numbers of non-padding tokens, so the step
(`step.py`) takes the mean once, over all of them. The z-loss and label smoothing are those of T5X
(t5x/losses.py), which the paper's code uses.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from prompt_tuning.errors import UserError


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Terms added to the cross-entropy.

    Attributes:
      z_loss: coefficient of log(Z)^2, which keeps logits from drifting (1e-4 in the paper's code;
        not mentioned in the paper).
      label_smoothing: probability mass spread evenly over the wrong tokens.
    """

    z_loss: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self):
        if not 0 <= self.label_smoothing < 1:
            raise UserError(
                f"train.label_smoothing is {self.label_smoothing}; it must be at least 0 and "
                "below 1."
            )


def cross_entropy(
    logits: Float[Array, "*batch vocab"],
    targets: Int[Array, "*batch"],
    weights: Float[Array, "*batch"],
    *,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the weighted sum of the tokens' losses in nats, and the sum of the weights.

    `z_loss` and `label_smoothing` are as in `LossOptions`. With smoothing, the entropy of the
    smoothed target is subtracted, so that a perfect prediction still has loss 0.
    """
    logits = logits.astype(jnp.float32)
    vocab = logits.shape[-1]
    log_z = jax.nn.logsumexp(logits, axis=-1)  # [*batch]
    # One-hot instead of a gather: its gradient is elementwise, not a scatter, so it fuses with the
    # softmax's and sums in the same order on every backend.
    target_logits = jnp.sum(logits * jax.nn.one_hot(targets, vocab), axis=-1)

    if label_smoothing:
        confidence = 1.0 - label_smoothing
        spread = label_smoothing / (vocab - 1)
        expected_logits = (confidence - spread) * target_logits + spread * jnp.sum(logits, axis=-1)
        entropy = -confidence * math.log(confidence) - label_smoothing * math.log(spread)
        losses = log_z - expected_logits - entropy
    else:
        losses = log_z - target_logits

    losses += z_loss * log_z**2
    return jnp.sum(losses * weights), jnp.sum(weights)
