"""Evaluation end to end on a tiny random model: order, padding, streaming and exact repetition."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt, save_prompt
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation import answerer
from prompt_tuning.evaluation.answerer import Answerer
from prompt_tuning.evaluation.rank import RankOptions, label_log_likelihoods
from prompt_tuning.methods.prompt import SoftPrompt, soft_prompt_array, soft_prompt_variables
from prompt_tuning.models.decoding import DecodingOptions, generate
from prompt_tuning.models.injection import Injection

METHOD = SoftPrompt(length=4, embed_dim=16)
LABELS = ("yes", "no", "maybe so")
LABEL_IDS = np.array([[7, 1, 0], [9, 1, 0], [5, 6, 1]], np.int32)
# Eleven examples out of order; the last row of the last batch fills it up.
INDICES = ([10, 3, 0, 7], [1, 2, 8, 4], [5, 6, 9])
TOKENS = np.random.default_rng(0).integers(2, 64, (11, 12)).astype(np.int32)


def batches(lengths=(12, 12, 12)):
    for indices, length in zip(INDICES, lengths, strict=True):
        rows = TOKENS[list(indices) + [indices[0]] * (4 - len(indices)), :length]
        yield {"encoder_input_tokens": rows}, np.array(indices)


def words(ids):
    return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def trained():
    return METHOD.init(jax.random.key(1), {})


@pytest.fixture(scope="module")
def inject(trained):
    return functools.partial(METHOD.apply, trained)


@pytest.fixture(scope="module")
def greedy(model, frozen):
    options = DecodingOptions(max_length=5)
    return Answerer(model=model, frozen=frozen, options=options, decode=words)


def ranking(model, frozen, labels=LABELS, label_ids=LABEL_IDS):
    return Answerer(
        model=model, frozen=frozen, options=RankOptions(), labels=labels, label_ids=label_ids
    )


@pytest.fixture(scope="module")
def rank(model, frozen):
    return ranking(model, frozen)


def texts(answerer, inject, batches):
    """The answers by the examples' indices."""
    return {i: answerer.text(row.choices[0]) for i, row in answerer.outputs([inject], batches)}


def test_predictions_are_in_the_order_of_the_examples(rank, inject):
    (predictions,) = rank.predict([inject], batches())
    assert set(predictions) <= set(LABELS)
    by_index = texts(rank, inject, batches())
    assert sorted(by_index) == list(range(11))
    assert predictions == [by_index[i] for i in range(11)]
    assert len(set(predictions)) > 1  # otherwise no order would show


def test_greedy_predictions_are_what_the_model_generates(model, greedy, frozen, inject, trained):
    predictions = texts(greedy, inject, batches())
    injection = Injection(encoder_prompt=soft_prompt_array(trained)[None])
    for batch, indices in batches():
        tokens = jnp.asarray(batch["encoder_input_tokens"])
        ids = generate(model, frozen, tokens, injection, DecodingOptions(max_length=5))
        for index, row in zip(indices, ids, strict=False):
            assert predictions[index] == words(row.tolist())


def test_rank_predictions_are_the_likeliest_labels(model, rank, frozen, inject):
    for batch, indices in batches():
        tokens = jnp.asarray(batch["encoder_input_tokens"])
        scores = jax.jit(label_log_likelihoods, static_argnums=0)(
            model, frozen, tokens, inject(batch), jnp.asarray(LABEL_IDS)
        )
        best = [LABELS[i] for i in np.argmax(scores, axis=1)]
        found = texts(rank, inject, [(batch, indices)])
        assert list(found.values()) == best[: len(indices)]


def test_the_prompt_reaches_the_predictions(greedy, inject):
    def without(batch):
        return Injection()

    assert texts(greedy, without, batches()) != texts(greedy, inject, batches())


def test_a_shape_is_compiled_once(model, frozen, inject):
    """Whichever answerers of the model it serves, and whatever their labels."""
    program = answerer._program(model, RankOptions(length_normalization=True), False)
    for labels in (LABELS, ("a", "b", "c")):
        fresh = dataclasses.replace(
            ranking(model, frozen, labels), options=RankOptions(length_normalization=True)
        )
        fresh.predict([inject], batches((12, 8, 8)))
    assert program._cache_size() == 2


def test_answers_come_before_the_next_batch_is_asked_for(rank, inject):
    asked = []

    def counted():
        for batch in batches():
            asked.append(batch)
            yield batch

    answers = rank.outputs([inject], counted())
    for _ in range(4):
        next(answers)
    assert len(asked) == 1
    next(answers)
    assert len(asked) == 2


def test_the_score_of_a_saved_prompt_is_the_same_to_the_last_digit(
    tmp_path, model, frozen, inject, trained
):
    """With a metric that shows every bit of the model's numbers, and all programs compiled anew."""

    def measure(inject):
        found = ranking(model, frozen).outputs([inject], batches())
        return {index: row.scores.tobytes() for index, row in found}

    before = measure(inject)
    _, path = save_prompt(tmp_path / "best", soft_prompt_array(trained), PromptMetadata())
    jax.clear_caches()
    answerer._program.cache_clear()
    prompt, _ = load_prompt(path)
    assert measure(functools.partial(METHOD.apply, soft_prompt_variables(prompt))) == before
    nudged = soft_prompt_variables(np.nextafter(prompt, 1, dtype=np.float32))
    assert measure(functools.partial(METHOD.apply, nudged)) != before


def test_sampling_depends_on_the_seed_and_the_batch(model, frozen, inject):
    options = DecodingOptions(max_length=5, method="sample")
    sampler = Answerer(model=model, frozen=frozen, options=options, decode=words)
    (batch, _) = next(batches())
    twice = [(batch, range(4)), (batch, range(4, 8))]
    draws = [sampler.predict([inject], twice, seed=seed)[0] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][:4] != draws[0][4:]


def test_several_injections_answer_as_each_alone(greedy, rank, trained, inject):
    other = functools.partial(METHOD.apply, jax.tree.map(jnp.negative, trained))
    for each in (greedy, rank):
        together = each.predict([inject, other], batches())
        assert together == [each.predict([one], batches())[0] for one in (inject, other)]
    assert together[0] != together[1]


def test_an_empty_split_is_told(rank, inject):
    for ask in (rank.predict, rank.ballots):
        with pytest.raises(UserError, match="split is empty"):
            ask([inject], [])


def test_of_equal_labels_the_first_is_predicted(model, frozen, inject):
    same = np.repeat(LABEL_IDS[:1], 3, axis=0)
    answerer = ranking(model, frozen, ("b", "a", "c"), same)
    assert set(answerer.predict([inject], batches())[0]) == {"b"}


def test_ranked_rows_hold_the_score_of_each_label(rank, inject):
    for _, row in rank.outputs([inject], batches()):
        assert row.scores.shape == (1, len(LABELS))
        assert rank.text(row.choices[0]) == LABELS[np.argmax(row.scores[0])]
