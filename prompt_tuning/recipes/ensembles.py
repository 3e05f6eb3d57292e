"""Several runs on one frozen model: ensembles (Lester et al., 2021, section 5), mixed batches."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.answerer import Inject
from prompt_tuning.evaluation.ensemble import Ballot, combinations
from prompt_tuning.evaluation.predictor import Predictor
from prompt_tuning.models.stacking import UnlikeInjectionsError
from prompt_tuning.recipes import scoring
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.predictors import add_trained, make_predictor
from prompt_tuning.recipes.run import Run
from prompt_tuning.recipes.say import shown
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.training.run import Evaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Votes:
    """Scores of several prompts and of their ensembles.

    Attributes:
      alone: evaluation of each prompt.
      weights: each prompt's weight in the weighted vote: its score on the development split.
      combined: evaluation of each combination: "majority vote", "mean probability" and
        "weighted vote".
    """

    alone: Sequence[Evaluation]
    weights: Sequence[float]
    combined: Mapping[str, Evaluation]


def vote(
    base: Base,
    data: Data,
    prediction: Prediction,
    injects: Sequence[Inject],
    split: str,
    weights: Sequence[float] | None = None,
) -> Votes:
    """Scores several prompts on a split, individually and as an ensemble.

    `weights` are the prompts' scores on the development split; None computes them.

    Raises:
      UserError: the split's labels are withheld, or the prompts' methods differ.
    """
    splits = load_splits(base, data, split)
    if scoring.withheld(splits):
        raise UserError(
            f"The labels of {data.name}'s {split} split are withheld, so an ensemble can't be "
            "scored on it; give another split, such as validation."
        )
    try:
        ballots = scoring.ballots(base, data, prediction, splits, injects)
    except UnlikeInjectionsError as error:
        raise UserError(
            f"These prompts can't vote in one program: {error} Give prompts of one method."
        ) from None

    def score(answer: Callable[[Ballot], str]) -> Evaluation:
        answers = [[answer(ballot) for ballot in of_task] for of_task in ballots]
        return scoring.score_of_answers(data, splits, answers)

    alone = [score(lambda ballot, i=i: ballot.given[i]) for i in range(len(injects))]
    if weights is None:
        development = (
            alone
            if split == prediction.split
            else vote(base, data, prediction, injects, prediction.split).alone
        )
        weights = [each.score for each in development]
    ways = combinations(np.array(weights))
    return Votes(
        alone=alone, weights=weights, combined={name: score(way) for name, way in ways.items()}
    )


def ensemble(
    runs: Sequence[Run], split: str | None = None, *, quiet: bool = False
) -> Mapping[str, Evaluation]:
    """Scores an ensemble of several runs' prompts, in one pass over the examples.

    Args:
      runs: runs of one task, frozen model and method.
      split: the task's split to score; None is the development split.
      quiet: print nothing.

    Returns:
      The evaluation of each combination of answers: "majority vote", "mean probability", and
      "weighted vote" (by the runs' development scores).

    Raises:
      UserError: there are fewer than two runs, their tasks, models or methods differ, or the
        split's labels are withheld.
    """
    if len(runs) < 2:
        raise UserError(f"An ensemble needs at least two runs; found {len(runs)}.")
    _check_alike(
        runs, {"task": lambda run: run.data.name, "frozen model": lambda run: run.base.config.name}
    )
    first = runs[0]
    injects = [run.adapter.inject for run in runs]
    split, weights = split or first.prediction.split, [run.score for run in runs]
    with shown(not quiet):
        votes = vote(first.base, first.data, first.prediction, injects, split, weights=weights)
    return votes.combined


def predictor(runs: Mapping[str, Run]) -> Predictor:
    """Returns a predictor with the prompts of several runs, which share batches.

        predictor = pt.predictor({"rte": rte, "wic": wic})
        answers = predictor.predict([pt.Example(prompt="rte", inputs={"premise": ...}), ...])

    Each run answers as in `Run.predict`: if its task has labels, they are ranked. Inputs are
    truncated to the maximum length of all runs; the batch size is the first run's.

    Args:
      runs: runs of any tasks and methods, by the names that examples use.

    Raises:
      UserError: there is no run, or their frozen models or decoding options differ.
    """
    if not runs:
        raise UserError("A predictor needs at least one run; found none.")
    given = list(runs.values())
    _check_alike(
        given,
        {
            "frozen model": lambda run: run.base.config.name,
            "decoding method": lambda run: run.prediction.decoding.method,
            "length normalization": lambda run: str(run.prediction.length_normalization),
            "calibration": lambda run: repr(run.prediction.calibration),
        },
    )
    first = given[0]
    lengths = {name: max(run.data.lengths[name] for run in given) for name in first.data.lengths}
    longest = max(run.prediction.decoding.max_length - run.data.target_sentinel for run in given)
    found = make_predictor(
        first.base,
        dataclasses.replace(first.data, lengths=lengths, target_sentinel=False),
        dataclasses.replace(
            first.prediction,
            decoding=dataclasses.replace(first.prediction.decoding, max_length=longest),
        ),
    )
    for name, run in runs.items():
        add_trained(found, name, run.adapter.injection, run.data, run.prediction)
    return found


def _check_alike(runs: Sequence[Run], properties: Mapping[str, Callable[[Run], str]]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for what, value in properties.items():
            if value(first) != value(run):
                raise UserError(
                    f"{run.folder} has the {what} {value(run)}, but {first.folder} has "
                    f"{value(first)}; runs that answer together must have the same."
                )
