"""The score of a prompt as its positions are removed one by one.

A removed position is masked in all attention, so that the others keep their distances to the
input, and all removals share one compiled program.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from prompt_tuning.models.injection import Injection

ScoreMany = Callable[[Sequence[Injection]], Sequence[float]]
"""Injections -> their scores on a development set; always called with the same number."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Removals:
    """Scores of a prompt without some of its positions.

    Attributes:
      whole: the score of the complete prompt.
      without: the score without position i.
      order: the positions, in descending order of `without`: the least important first; among
        ties, the later position first.
      cumulative: the score without the first i + 1 positions of `order`; the last is that of the
        model without a prompt.
    """

    whole: float
    without: Float[np.ndarray, "prompt"]
    order: tuple[int, ...]
    cumulative: Float[np.ndarray, "prompt"]


def score_removals(
    prompt: Float[np.ndarray, "prompt embed"], score_many: ScoreMany, *, at_once: int = 8
) -> Removals:
    """Scores a prompt without each of its positions, and without a growing number of them.

    This takes 2 * positions + 1 evaluations.

    Args:
      prompt: a soft prompt.
      score_many: scores `at_once` injections.
      at_once: number scored together; memory for activations grows with it.
    """
    length = len(prompt)
    alone = ~np.eye(length, dtype=bool)
    whole, *without = _scores(
        prompt, np.vstack([np.ones((1, length), bool), alone]), score_many, at_once
    )
    # By descending score; `lexsort` sorts by its last key first.
    order = np.lexsort((-np.arange(length), -np.array(without)))
    kept = np.ones((length, length), bool)
    for removed, mask in enumerate(kept, start=1):
        mask[order[:removed]] = False
    cumulative = _scores(prompt, kept, score_many, at_once)
    return Removals(
        whole=whole,
        without=np.array(without),
        order=tuple(map(int, order)),
        cumulative=np.array(cumulative),
    )


def _scores(
    prompt: Float[np.ndarray, "prompt embed"],
    masks: Bool[np.ndarray, "rows prompt"],
    score_many: ScoreMany,
    at_once: int,
) -> list[float]:
    """Returns the score of the prompt with each mask; the last group is padded."""
    scores: list[float] = []
    for start in range(0, len(masks), at_once):
        group = masks[start : start + at_once]
        padded = np.concatenate([group, np.repeat(group[-1:], at_once - len(group), axis=0)])
        injections = [
            Injection(
                encoder_prompt=jnp.asarray(prompt)[None],
                encoder_prompt_mask=jnp.asarray(mask)[None],
            )
            for mask in padded
        ]
        scores += score_many(injections)[: len(group)]
    return [float(score) for score in scores]
