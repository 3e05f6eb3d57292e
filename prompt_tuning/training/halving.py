"""Successive halving: train all members briefly, keep the best half, and repeat.

Jamieson and Talwalkar (2016), "Non-stochastic best arm identification and hyperparameter
optimization". A *rung* is a step at which the members with the lowest development scores are
dropped. If half are kept at rungs at 1/8, 1/4 and 1/2 of the steps, eight members cost 2.5 full
runs instead of eight.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from prompt_tuning.errors import UserError
from prompt_tuning.settings import Free

BestScore = tuple[float, int]
"""The best development score so far, and its step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halving:
    """Options of successive halving.

    Attributes:
      keep: fraction of members kept at each rung, rounded up.
      rungs: steps, ascending. If None, they are chosen so that one member remains at the end and
        each interval is 1/keep times as long as the one before.
    """

    # A population's identity contains the resulting steps of the rungs instead of these.
    keep: Free[float] = 0.5
    rungs: Free[Sequence[int] | None] = None

    def __post_init__(self):
        if not 0 < self.keep < 1:
            raise UserError(
                f"successive_halving.keep is {self.keep}; it must be between 0 and 1, such as 0.5."
            )
        if self.rungs is not None and (
            any(rung < 1 for rung in self.rungs) or list(self.rungs) != sorted(set(self.rungs))
        ):
            raise UserError(
                f"successive_halving.rungs is {list(self.rungs)}; expected ascending steps."
            )

    def steps(self, *, members: int, train_steps: int, eval_every: int) -> list[int]:
        """Returns the steps of the rungs; the development set is evaluated at each.

        Raises:
          UserError: a given rung isn't a multiple of `eval_every` below `train_steps`.
        """
        if self.rungs is not None:
            wrong = [rung for rung in self.rungs if rung % eval_every or rung >= train_steps]
            if wrong:
                raise UserError(
                    f"The rung {wrong[0]} must be a multiple of eval_every ({eval_every}), so "
                    f"that it has a score, and below the {train_steps} training steps."
                )
            return list(self.rungs)
        number = 0
        while members > 1:
            members, number = self.kept(members), number + 1
        rungs = {
            max(1, round(train_steps * self.keep**rung / eval_every)) * eval_every
            for rung in range(1, number + 1)
        }
        return sorted(rung for rung in rungs if rung < train_steps)

    def kept(self, members: int) -> int:
        """Returns the number of members that remain after a rung."""
        # Drop at least one; otherwise a `keep` close to 1 would never reach one member.
        return max(1, min(math.ceil(members * self.keep), members - 1))


def ranked(scores: Mapping[str, BestScore]) -> list[str]:
    """Returns names from best to worst; of equal scores, the one reached earlier ranks higher."""

    def order(name: str) -> tuple[bool, float, int]:
        score, step = scores[name]
        return (math.isnan(score), -score, step)

    return sorted(scores, key=order)


def best_until(rows: Iterable[Mapping[str, float | int]], step: int) -> BestScore:
    """Returns the best score up to a step, from rows of `metrics.jsonl`; NaN if there is none."""
    best = (math.nan, 0)
    for row in rows:
        score = row.get("eval/score")
        if score is None or row["step"] > step or math.isnan(score):
            continue
        if math.isnan(best[0]) or score > best[0]:
            best = (float(score), int(row["step"]))
    return best
