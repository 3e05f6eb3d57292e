"""Votes and their ties on ballots made by hand, and ballots of a tiny model in one pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.evaluation.answerer import Answerer, Outputs
from prompt_tuning.evaluation.ensemble import (
    Ballot,
    combinations,
    majority_vote,
    mean_probability,
    weighted_vote,
)
from prompt_tuning.evaluation.rank import RankOptions, label_log_likelihoods
from prompt_tuning.methods.prompt import SoftPrompt, soft_prompt_variables
from prompt_tuning.models.decoding import DecodingOptions, generate

LABELS = ("yes", "no", "maybe")
LABEL_IDS = np.array([[7, 1, 0], [9, 1, 0], [5, 6, 1]], np.int32)
TOKENS = np.random.default_rng(0).integers(2, 64, (5, 8)).astype(np.int32)
INDICES = ([4, 0, 2], [1, 3])
# Of different lengths: the shorter is filled up, behind a mask.
PROMPTS = [np.random.default_rng(n).normal(size=(n, 16)).astype(np.float32) for n in (4, 2, 4)]
INJECTS = [
    functools.partial(
        SoftPrompt(length=len(prompt), embed_dim=16).apply, soft_prompt_variables(prompt)
    )
    for prompt in PROMPTS
]


def ballot(*probabilities):
    """The ballot of prompts with these probabilities, each voting for its likeliest."""
    p = np.array(probabilities)
    with np.errstate(divide="ignore"):
        logs = np.log(p) - 3.0  # as likelihoods, they need not sum to 1
    return Ballot(answers=LABELS, log_likelihoods=logs, votes=tuple(map(int, p.argmax(axis=1))))


def batches():
    for indices in INDICES:
        rows = list(indices) + [indices[0]] * (3 - len(indices))
        yield {"encoder_input_tokens": TOKENS[rows]}, np.array(indices)


def test_most_votes_win_however_sure_the_others_are():
    found = ballot([0.51, 0.49, 0], [0.51, 0.49, 0], [0, 1, 0])
    assert majority_vote(found) == "yes"
    np.testing.assert_allclose(found.mean_probabilities, [0.34, 0.66, 0], atol=1e-12)
    assert mean_probability(found) == "no"
    assert found.given == ("yes", "yes", "no")


def test_a_tie_goes_to_the_higher_mean_probability():
    assert majority_vote(ballot([0.6, 0.4, 0], [0.1, 0.9, 0])) == "no"
    assert majority_vote(ballot([0.9, 0.1, 0], [0.4, 0.6, 0])) == "yes"


def test_only_tied_answers_can_win_a_tie():
    """The second-best of every prompt is likelier on the whole than the answers that were given."""
    found = ballot([0.5, 0, 0.5 - 1e-3], [0, 0.5, 0.5 - 1e-3])
    assert mean_probability(found) == "maybe"
    assert majority_vote(found) in ("yes", "no")


def test_of_equals_the_first_label_wins():
    found = ballot([0.1, 0.8, 0.1], [0.8, 0.1, 0.1])
    assert majority_vote(found) == mean_probability(found) == "yes"


def test_votes_count_as_much_as_their_weights():
    found = ballot([0.9, 0.1, 0], [0.4, 0.6, 0], [0.4, 0.6, 0])
    assert weighted_vote(found, np.array([0.9, 0.3, 0.3])) == "yes"
    assert weighted_vote(found, np.array([0.5, 0.3, 0.3])) == "no"
    # A sum that differs by rounding alone is a tie, which the mean probability decides.
    assert 0.1 + 0.2 != 0.3
    assert weighted_vote(found, np.array([0.3, 0.1, 0.2])) == "yes"
    assert weighted_vote(found, np.zeros(3)) == "no"
    named = combinations(np.array([0.9, -0.3, 0.3]))
    assert {name: answer(found) for name, answer in named.items()} == {
        "majority vote": "no",
        "mean probability": "yes",
        "weighted vote": "yes",
    }


def test_one_pass_ranks_as_each_prompt_alone_does(model, frozen):
    voter = Answerer(
        model=model, frozen=frozen, options=RankOptions(), labels=LABELS, label_ids=LABEL_IDS
    )
    found = voter.ballots(INJECTS, batches())
    alone = jax.jit(label_log_likelihoods, static_argnums=0)
    for i, inject in enumerate(INJECTS):
        scores = np.asarray(
            alone(model, frozen, jnp.asarray(TOKENS), inject({}), jnp.asarray(LABEL_IDS))
        )
        np.testing.assert_allclose([b.log_likelihoods[i] for b in found], scores, rtol=1e-4)
        assert [b.given[i] for b in found] == [LABELS[k] for k in scores.argmax(axis=1)]


def test_generated_answers_are_scored_by_every_prompt(model, frozen):
    options = DecodingOptions(max_length=2)
    voter = Answerer(
        model=model,
        frozen=frozen,
        options=options,
        decode=lambda ids: " ".join(map(str, ids)),
    )
    batch, indices = next(batches())
    found = voter.ballots(INJECTS[1:], [(batch, [0, 1, 2])])
    assert len(indices) == 3
    tokens = jnp.asarray(batch["encoder_input_tokens"])
    ids = [np.asarray(generate(model, frozen, tokens, i({}), options)) for i in INJECTS[1:]]
    for example, ballot in enumerate(found):
        texts = [" ".join(map(str, of_prompt[example].tolist())) for of_prompt in ids]
        assert list(ballot.given) == texts and len(set(ballot.answers)) == len(ballot.answers)
    # What each prompt answered to the first example, scored by the first of them alone.
    targets = jnp.asarray(np.stack([of_prompt[0] for of_prompt in ids]))
    alone = jax.jit(label_log_likelihoods, static_argnums=0)
    scores = np.asarray(alone(model, frozen, tokens, INJECTS[1]({}), targets))[0]
    by_text = dict(zip(found[0].given, scores, strict=True))
    expected = [by_text[answer] for answer in found[0].answers]
    np.testing.assert_allclose(found[0].log_likelihoods[0], expected, rtol=1e-4)


def test_answers_of_one_text_are_one(model):
    options = DecodingOptions(max_length=2)
    voter = Answerer(model=model, frozen={}, options=options, decode=lambda ids: str(sum(ids)))
    ids = np.array([[3, 4], [7, 0], [2, 0]])
    logs = np.array([[-1.0, -2, -3], [-5, -4, -3], [-1, -1, -9]])
    read = voter._ballot(Outputs(ids, logs))
    assert read.answers == ("7", "2") and read.votes == (0, 0, 1)
    np.testing.assert_array_equal(read.log_likelihoods, [[-1, -3], [-4, -3], [-1, -9]])
