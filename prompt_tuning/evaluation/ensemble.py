"""Ensembles of prompts on one frozen model (Lester et al. 2021, section 5, table 3).

One forward pass answers a batch with all prompts: it is repeated for each of them, on a leading
axis over which the model is mapped. What the prompts say to an example is its `Ballot`, and how
they are counted is a function of the ballot alone:

    majority_vote      the answer that most prompts give: the paper's
    mean_probability   the likeliest by the mean of the prompts' probabilities
    weighted_vote      a vote counts as much as its prompt's development score

A tie is between answers with as many votes, which the paper says nothing of: the one with the
highest mean probability wins, and of equals the first: in the order of the labels or, of
generated answers, in that of the prompts.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.evaluator import IndexedBatch, Inject
from prompt_tuning.evaluation.rank import (
    LOGIT_BYTES,
    RankOptions,
    label_scores,
    target_log_likelihoods,
)
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import stack_injections
from prompt_tuning.models.t5 import T5, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ballot:
    """What several prompts say to one example.

    Attributes:
      answers: what could be the answer: the task's labels, or what any of the prompts generated.
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
      ballot: what the prompts say.
      weights: of each prompt, at least 0; if all are 0 they count alike.
    """
    if not np.any(weights):
        weights = np.ones(len(weights))
    tally = np.bincount(ballot.votes, weights, minlength=len(ballot.answers))
    tied = np.isclose(tally, tally.max(), rtol=1e-9)
    return ballot.answers[int(np.argmax(np.where(tied, ballot.mean_probabilities, -1.0)))]


def mean_probability(ballot: Ballot) -> str:
    """Returns the answer with the highest mean probability; of equals the first."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Voter:
    """A way of asking several prompts at once.

    Attributes:
      run: compiled, once for each shape and number of prompts: (frozen, injections,
        encoder_input_tokens, key) -> what each prompt answers, [prompts, batch, ...], and the
        log-likelihoods [prompts, batch, answers].
      read: makes a ballot of one example's share of both.
    """

    run: Callable[[Params, Sequence[Injection], Array, PRNGKeyArray], tuple[Array, Array]]
    read: Callable[[np.ndarray, np.ndarray], Ballot]


def rank_voter(
    model: T5,
    label_ids: Int[np.ndarray, "labels target"],
    labels: Sequence[str],
    options: RankOptions = RankOptions(),
) -> Voter:
    """Each prompt votes for the label that it makes likeliest; of equals the first.

    Args:
      model: the network.
      label_ids: each label's token ids with end of sequence, padded.
      labels: the labels' words, in the same order.
      options: how their scores are corrected.
    """

    @jax.jit
    def run(
        frozen: Params,
        injections: Sequence[Injection],
        encoder_input_tokens: Int[Array, "batch source"],
        key: PRNGKeyArray,
    ) -> tuple[Int[Array, "prompts batch"], Float[Array, "prompts batch labels"]]:
        del key
        arrays, injection_of = stack_injections(injections)

        def score(arrays: Sequence[Array]) -> Float[Array, "batch labels"]:
            injection = injection_of(arrays)
            ids = jnp.asarray(label_ids)
            return label_scores(
                model,
                frozen,
                encoder_input_tokens,
                injection,
                ids,
                options,
                logit_bytes=LOGIT_BYTES // len(injections),
            )

        scores = jax.vmap(score)(arrays)
        return jnp.argmax(scores, axis=-1), scores

    def read(votes: np.ndarray, log_likelihoods: np.ndarray) -> Ballot:
        return Ballot(
            answers=tuple(labels),
            log_likelihoods=log_likelihoods,
            votes=tuple(map(int, votes)),
        )

    return Voter(run=run, read=read)


def decoding_voter(
    model: T5, options: DecodingOptions, decode: Callable[[Iterable[int]], str]
) -> Voter:
    """Each prompt votes for what it generates, and scores what the others generate.

    Answers of the same text are one; it is as likely as the likeliest of its spellings.

    Args:
      model: the network.
      options: how to decode, and how many tokens at most.
      decode: gives the text of token ids up to the end of sequence.
    """

    @jax.jit
    def run(
        frozen: Params,
        injections: Sequence[Injection],
        encoder_input_tokens: Int[Array, "batch source"],
        key: PRNGKeyArray,
    ) -> tuple[Int[Array, "prompts batch target"], Float[Array, "prompts batch answers"]]:
        arrays, injection_of = stack_injections(injections)

        def answer(arrays: Sequence[Array]) -> Int[Array, "batch target"]:
            injection = injection_of(arrays)
            return generate(model, frozen, encoder_input_tokens, injection, options, key)

        ids = jax.vmap(answer)(arrays)
        answers = jnp.swapaxes(ids, 0, 1)

        def score(arrays: Sequence[Array]) -> Float[Array, "batch answers"]:
            injection = injection_of(arrays)
            return target_log_likelihoods(
                model,
                frozen,
                encoder_input_tokens,
                injection,
                answers,
                logit_bytes=LOGIT_BYTES // len(injections),
            )

        return ids, jax.vmap(score)(arrays)

    def read(ids: np.ndarray, log_likelihoods: np.ndarray) -> Ballot:
        texts = [decode(row.tolist()) for row in ids]
        answers = tuple(dict.fromkeys(texts))
        columns = [
            log_likelihoods[:, [text == answer for text in texts]].max(axis=1) for answer in answers
        ]
        return Ballot(
            answers=answers,
            log_likelihoods=np.stack(columns, axis=1),
            votes=tuple(map(answers.index, texts)),
        )

    return Voter(run=run, read=read)


def collect_ballots(
    voter: Voter,
    frozen: Params,
    injects: Sequence[Inject],
    batches: Iterable[IndexedBatch],
    *,
    seed: int = 0,
) -> list[Ballot]:
    """Asks all prompts about every example, a batch at a time.

    The memory for activations grows with the number of prompts.

    Args:
      voter: how to ask.
      frozen: the model's weights.
      injects: gives the injection of each prompt for a batch.
      batches: every example once, in any order.
      seed: for sampling.

    Returns:
      The ballots, in the order of the examples' indices.

    Raises:
      UserError: there are no examples.
    """
    key = jax.random.key(seed)
    by_index: dict[int, Ballot] = {}
    for position, (batch, indices) in enumerate(batches):
        answers, log_likelihoods = voter.run(
            frozen,
            tuple(inject(batch) for inject in injects),
            jnp.asarray(batch["encoder_input_tokens"]),
            jax.random.fold_in(key, position),
        )
        answers, log_likelihoods = np.asarray(answers), np.asarray(log_likelihoods)
        for row, index in enumerate(indices):
            by_index[int(index)] = voter.read(answers[:, row], log_likelihoods[:, row])
    if not by_index:
        raise UserError("There are no examples to evaluate: the split is empty.")
    return [by_index[index] for index in sorted(by_index)]
