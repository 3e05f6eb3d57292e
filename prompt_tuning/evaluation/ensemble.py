"""Ensembles of prompts on one frozen model (Lester et al. 2021, section 5, table 3).

One pass answers a batch with all prompts (`answerer.py`). What they answer to an example is its
`Ballot`, and how votes are counted is a function of the ballot alone:

    majority_vote      the answer that most prompts give: the paper's
    mean_probability   the likeliest by the mean of the prompts' probabilities
    weighted_vote      a vote counts as much as its prompt's development score

The paper doesn't mention ties. Of answers with equally many votes, the one with the highest mean
probability wins; if these are equal too, the first in the order of the labels or, of generated
answers, of the prompts.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ballot:
    """What several prompts answer to one example.

    Attributes:
      answers: the candidates: the task's labels, or what any of the prompts generated.
      log_likelihoods: of each answer, in nats, by each prompt; as `RankOptions` correct them.
      votes: the index of each prompt's own answer.
    """

    answers: tuple[str, ...]
    log_likelihoods: Float[np.ndarray, "prompts answers"]
    votes: tuple[int, ...]

    @property
    def given(self) -> tuple[str, ...]:
        """Each prompt's own answer."""
        return tuple(self.answers[vote] for vote in self.votes)

    @property
    def mean_probabilities(self) -> Float[np.ndarray, "answers"]:
        """The mean over the prompts of each answer's probability among these answers."""
        highest = self.log_likelihoods.max(axis=1, keepdims=True)
        likelihoods = np.exp(self.log_likelihoods - highest)
        return (likelihoods / likelihoods.sum(axis=1, keepdims=True)).mean(axis=0)


def majority_vote(ballot: Ballot) -> str:
    """Returns the answer that most prompts give; see the module for ties."""
    return weighted_vote(ballot, np.ones(len(ballot.votes)))


def weighted_vote(ballot: Ballot, weights: Float[np.ndarray, "prompts"]) -> str:
    """Returns the answer whose prompts weigh most; see the module for ties.

    Args:
      ballot: what the prompts answer.
      weights: of each prompt, at least 0; if all are 0 they count equally.
    """
    if not np.any(weights):
        weights = np.ones(len(weights))
    tally = np.bincount(ballot.votes, weights, minlength=len(ballot.answers))
    tied = np.isclose(tally, tally.max(), rtol=1e-9)
    return ballot.answers[int(np.argmax(np.where(tied, ballot.mean_probabilities, -1.0)))]


def mean_probability(ballot: Ballot) -> str:
    """Returns the answer with the highest mean probability; the first of equal ones."""
    return ballot.answers[int(np.argmax(ballot.mean_probabilities))]


def combinations(
    weights: Float[np.ndarray, "prompts"],
) -> dict[str, Callable[[Ballot], str]]:
    """Returns the ways of combining prompts, by name.

    Args:
      weights: the development score of each prompt, for the weighted vote; below 0 counts as 0.
    """
    positive = np.maximum(weights, 0.0)
    return {
        "majority vote": majority_vote,
        "mean probability": mean_probability,
        "weighted vote": lambda ballot: weighted_vote(ballot, positive),
    }
