"""Early stopping on the development score, and the best evaluation so far.

The paper selects the checkpoint with the best score on the development set (Lester et al. 2021,
section 3); stopping once the score no longer improves saves the remaining steps.
"""

import dataclasses
import math


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """The best evaluation so far; plain values, since checkpoints store it.

    Attributes:
      step: of the evaluation; None before the first.
      score: the development score; higher is better.
      metrics: all its metrics.
      evaluations_since: number of evaluations since without a better score.
    """

    step: int | None = None
    score: float | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    evaluations_since: int = 0

    def updated(self, step: int, score: float, metrics: dict[str, float]) -> "Best":
        """Returns the best after one more evaluation; the earlier of two equal scores wins."""
        # NaN never improves a score; any number improves NaN. (`<=` is False for a NaN best.)
        if self.score is None or not (math.isnan(score) or score <= self.score):
            return Best(step=step, score=score, metrics=dict(metrics))
        return dataclasses.replace(self, evaluations_since=self.evaluations_since + 1)

    def why_stop(self, patience: int | None, target_score: float | None) -> str | None:
        """Returns why training stops early, or None if it goes on.

        Args:
          patience: stop after this many evaluations without a better score; None is never.
          target_score: stop at this score; None is never.
        """
        if target_score is not None and self.score is not None and self.score >= target_score:
            return f"the score reached {target_score}"
        if patience is not None and self.evaluations_since >= patience:
            return f"no better score in {patience} evaluations"
        return None
