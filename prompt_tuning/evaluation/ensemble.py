"""Ensembles of prompts on one frozen model (Lester et al. 2021, section 5, table 3).

One pass answers a batch with all prompts (`answerer.py`). Their answers to an example are its
`Ballot`, and each way of counting votes is a function of the ballot:

    majority_vote      the answer of most prompts, as in the paper
    mean_probability   the answer with the highest mean probability over the prompts
    weighted_vote      a vote counts as much as its prompt's development score

The paper doesn't mention ties. Here they go to the highest mean probability, then to the first in
the order of the labels or, for generated answers, of the prompts.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ballot:
    """Answers of several prompts to one example.

    Attributes:
      answers: the candidates: the task's labels, or the prompts' generated answers.
      log_likelihoods: of each answer, in nats, by each prompt, corrected as in `RankOptions`.
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
        """The mean over the prompts of each answer's probability, normalized over the answers."""
        highest = self.log_likelihoods.max(axis=1, keepdims=True)
        likelihoods = np.exp(self.log_likelihoods - highest)
        return (likelihoods / likelihoods.sum(axis=1, keepdims=True)).mean(axis=0)


def majority_vote(ballot: Ballot) -> str:
    """Returns the answer of most prompts; see the module for ties."""
    return weighted_vote(ballot, np.ones(len(ballot.votes)))


def weighted_vote(ballot: Ballot, weights: Float[np.ndarray, "prompts"]) -> str:
    """Returns the answer with the largest total weight; see the module for ties.

    Args:
      ballot: the prompts' answers.
      weights: of each prompt, at least 0; if all are 0, prompts count equally.
    """
    if not np.any(weights):
        weights = np.ones(len(weights))
    tally = np.bincount(ballot.votes, weights, minlength=len(ballot.answers))
    tied = np.isclose(tally, tally.max(), rtol=1e-9)
    return ballot.answers[int(np.argmax(np.where(tied, ballot.mean_probabilities, -1.0)))]


def mean_probability(ballot: Ballot) -> str:
    """Returns the answer with the highest mean probability; of ties, the first."""
    return ballot.answers[int(np.argmax(ballot.mean_probabilities))]


def combinations(
    weights: Float[np.ndarray, "prompts"],
) -> dict[str, Callable[[Ballot], str]]:
    """Returns the ways of combining prompts, by name.

    Args:
      weights: the development score of each prompt, for the weighted vote; negative is 0.
    """
    positive = np.maximum(weights, 0.0)
    return {
        "majority vote": majority_vote,
        "mean probability": mean_probability,
        "weighted vote": lambda ballot: weighted_vote(ballot, positive),
    }
