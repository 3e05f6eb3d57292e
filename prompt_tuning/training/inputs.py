"""The input of a step: a batch, and its size without padding."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.training.step import Batch


class Input(NamedTuple):
    """A batch with its size.

    Attributes:
      batch: the arrays.
      examples: number of rows with a target.
      tokens: number of input and target tokens.
    """

    batch: Batch
    examples: int
    tokens: int


def make_input(batch: Batch, accumulation_steps: int, place: Callable[[Batch], Batch]) -> Input:
    """Counts a batch's examples and tokens on the host, then places it on the devices.

    Raises:
      UserError: the batch size isn't divisible by `accumulation_steps`.
    """
    weights = np.asarray(batch["decoder_loss_weights"])  # [batch, target]
    if len(weights) % accumulation_steps:
        raise UserError(
            f"A batch of {len(weights)} examples can't be split into {accumulation_steps} equal "
            "microbatches; make BATCH_SIZE a multiple of accumulation_steps."
        )
    tokens = np.count_nonzero(batch["encoder_input_tokens"]) + np.count_nonzero(weights)
    examples = np.count_nonzero(np.any(weights > 0, axis=-1))
    return Input(place(batch), int(examples), int(tokens))
