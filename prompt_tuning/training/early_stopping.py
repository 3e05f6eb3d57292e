"""Early stopping on the development score, and the best evaluation so far.

The paper picks the checkpoint that scores best on the development set (Lester et al. 2021,
section 3); stopping once the score has not improved for a while saves the remaining steps.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """The best evaluation so far; checkpoints hold it, so its fields are plain values.

    step: when it was made; None before the first evaluation.
    score: the development score; higher is better.
    metrics: all its metrics.
    evaluations_since: how many evaluations have followed without a better score.
    """

    step: int | None = None
    score: float | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    evaluations_since: int = 0

    def updated(self, step: int, score: float, metrics: dict[str, float]) -> "Best":
        """Returns the best after one more evaluation. The earlier of two equal scores stays."""
        # A NaN score is never an improvement, and any number is one over it.
        if self.score is None or not (math.isnan(score) or score <= self.score):
            return Best(step=step, score=score, metrics=dict(metrics))
        return dataclasses.replace(self, evaluations_since=self.evaluations_since + 1)

    def should_stop(self, patience: int | None) -> bool:
        """Whether `patience` evaluations in a row were no better (None: never)."""
        return patience is not None and self.evaluations_since >= patience
