"""Several prompts of one frozen model that vote on each answer (Lester et al., 2021, section 5)."""

from collections.abc import Mapping, Sequence

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.ensemble import combinations
from prompt_tuning.models.stacking import UnlikeInjectionsError
from prompt_tuning.recipes import scoring
from prompt_tuning.recipes.run import Run
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.training.run import Evaluation


def ensemble(runs: Sequence[Run], split: str | None = None) -> Mapping[str, Evaluation]:
    """Scores the votes of several runs' prompts, which see each example at once.

    Args:
      runs: of one task and one frozen model, the first one's, and of one method.
      split: of the task; None is the development split.

    Returns:
      What is found by each way of combining answers: "majority vote", "mean probability", and
      "weighted vote", by the runs' development scores.

    Raises:
      UserError: there are fewer than two runs, they are of different tasks, models or methods, or
        the split's labels are withheld.
    """
    if len(runs) < 2:
        raise UserError(f"An ensemble needs at least two runs; found {len(runs)}.")
    first = runs[0]
    for run in runs[1:]:
        for what, ours, theirs in (
            ("task", first.data.name, run.data.name),
            ("frozen model", first.base.config.name, run.base.config.name),
        ):
            if ours != theirs:
                raise UserError(
                    f"{run.folder} is of the {what} {theirs} and {first.folder} of {ours}; an "
                    "ensemble's runs are of one."
                )
    splits = load_splits(first.base, first.data, split or first.prediction.split)
    injects = [run.adapter.inject for run in runs]
    try:
        ballots = scoring.ballots(first.base, first.data, first.prediction, splits, injects)
    except UnlikeInjectionsError as error:
        raise UserError(
            f"These runs can't vote in one program: {error} Give runs of one method."
        ) from None
    weights = np.array([run.score for run in runs])
    return {
        name: scoring.score_of_answers(
            first.data, splits, [[vote(ballot) for ballot in of_task] for of_task in ballots]
        )
        for name, vote in combinations(weights).items()
    }
