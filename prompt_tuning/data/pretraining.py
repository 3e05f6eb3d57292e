"""The two pre-training objectives of the frozen model, on token ids.

Span corruption (Raffel et al., 2020, section 3.1.4) replaces random spans of a text by sentinels;
the targets are the spans. LM adaptation (Lester et al., 2021, section 3.1) splits a text in two.
Both return lists of ids that end in EOS.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.errors import UserError, did_you_mean

Objective = Literal["span_corruption", "lm_adaptation"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

SHORTEST = 3
"""Minimum length of inputs and of targets: one token of the text, a sentinel, and EOS."""


def piece_lengths(
    objective: str, input_length: int, target_length: int | None = None
) -> tuple[int, int]:
    """Returns the maximum length of a piece of text whose inputs and targets fit.

    Args:
      objective: one of `OBJECTIVES`.
      input_length: maximum length of inputs, in tokens with EOS.
      target_length: maximum length of targets; None for the length that follows from the inputs'.

    Returns:
      `(piece_length, target_length)` in tokens, targets with EOS.

    Raises:
      UserError: there is no such objective, or a length is too short.
    """
    if objective not in OBJECTIVES:
        raise UserError(
            f"Unknown objective {objective!r}; expected {' or '.join(OBJECTIVES)}."
            f"{did_you_mean(objective, OBJECTIVES)}"
        )
    for name, length in (("inputs", input_length), ("targets", target_length)):
        if length is not None and length < SHORTEST:
            raise UserError(
                f"Pre-training with {name} of {length} tokens is not possible: at least "
                f"{SHORTEST} are needed, including end of sequence (T5: 512 and 114)."
            )
    if objective == "lm_adaptation":
        # Either part may be almost the whole piece.
        return min(input_length, target_length or input_length) - 1, target_length or input_length
    length, found = span_corruption_lengths(input_length)
    while target_length is not None and found > target_length:
        length -= 1
        num_noise, num_spans = noise_and_spans(length)
        found = num_noise + num_spans + 1
    return length, target_length or found


def span_corruption(
    ids: Sequence[int],
    rng: np.random.Generator,
    *,
    vocab_size: int,
    noise_density: float = 0.15,
    mean_span_length: float = 3.0,
    eos_id: int = EOS_ID,
) -> tuple[list[int], list[int]]:
    """Replaces random spans by sentinels.

    Args:
      ids: the text, without EOS, at least two tokens.
      rng: for sampling spans.
      vocab_size: size of the vocabulary with its sentinels; the i-th span of a text is replaced
        by `vocab_size - 1 - i`, T5's `<extra_id_i>`.
      noise_density: share of the tokens that are corrupted.
      mean_span_length: in tokens.
      eos_id: the id of EOS.

      Returns:
        `(inputs, targets)`, both ending in EOS; the targets are each sentinel followed by its span.
    """
    length = len(ids)
    num_noise, num_spans = noise_and_spans(length, noise_density, mean_span_length)
    noise_lengths = _random_partition(num_noise, num_spans, rng)
    # A text may start or end with a span, so the first and last kept stretch may be empty.
    kept_lengths = _random_partition(length - num_noise + 2, num_spans + 1, rng)
    kept_lengths[0] -= 1
    kept_lengths[-1] -= 1

    inputs: list[int] = []
    targets: list[int] = []
    position = 0
    for i in range(num_spans):
        sentinel = vocab_size - 1 - i
        inputs += [*ids[position : position + kept_lengths[i]], sentinel]
        position += kept_lengths[i]
        targets += [sentinel, *ids[position : position + noise_lengths[i]]]
        position += noise_lengths[i]
    inputs += ids[position:]
    return [*inputs, eos_id], [*targets, eos_id]


def noise_and_spans(
    length: int, noise_density: float = 0.15, mean_span_length: float = 3.0
) -> tuple[int, int]:
    """Returns the number of tokens that `span_corruption` corrupts, and the number of spans."""
    num_noise = min(max(round(length * noise_density), 1), length - 1)
    num_spans = max(round(num_noise / mean_span_length), 1)
    return num_noise, min(num_spans, length - num_noise)


def span_corruption_lengths(
    input_length: int, *, noise_density: float = 0.15, mean_span_length: float = 3.0
) -> tuple[int, int]:
    """Returns the maximum length of a text whose corrupted inputs fit, and its targets' length.

    Args:
      input_length: tokens of the inputs with EOS, at least three.
      noise_density: as in `span_corruption`.
      mean_span_length: as in `span_corruption`.

    Returns:
      `(text_length, target_length)` in tokens, targets with EOS. T5's 512 gives (568, 114).
    """

    def lengths(text_length: int) -> tuple[int, int]:
        num_noise, num_spans = noise_and_spans(text_length, noise_density, mean_span_length)
        return text_length - num_noise + num_spans + 1, num_noise + num_spans + 1

    text_length = 2
    while lengths(text_length + 1)[0] <= input_length:
        text_length += 1
    return text_length, lengths(text_length)[1]


def lm_adaptation(
    prefix: Sequence[int], continuation: Sequence[int], eos_id: int = EOS_ID
) -> tuple[list[int], list[int]]:
    """Returns the prefix as inputs and the continuation as targets, both ending in EOS."""
    return [*prefix, eos_id], [*continuation, eos_id]


def _random_partition(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """Splits `total` into `parts` positive lengths, uniformly at random."""
    cuts = np.sort(rng.choice(total - 1, size=parts - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], cuts, [total]))).tolist()
