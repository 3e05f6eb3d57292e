"""Evaluation end to end on a tiny random model: order, padding, streaming and exact repetition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.checkpoints.prompt_files import PromptMetadata, load_prompt, save_prompt
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.evaluator import (
    Predictor,
    decoding_predictor,
    evaluate,
    predict,
    predict_rows,
    rank_predictor,
)
from prompt_tuning.evaluation.rank import label_log_likelihoods
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
def greedy(model):
    return decoding_predictor(model, DecodingOptions(max_length=5), words)


@pytest.fixture(scope="module")
def rank(model):
    return rank_predictor(model, LABEL_IDS, LABELS)


def test_predictions_and_metrics_are_in_the_order_of_the_examples(rank, frozen, inject):
    seen = []

    def metric(predictions):
        seen.extend(predictions)
        return {"yes": np.float32(0.5), "count": len(predictions)}

    metrics, predictions = evaluate(rank, frozen, inject, batches(), metric)
    assert metrics == {"yes": 0.5, "count": 11.0} and type(metrics["yes"]) is float
    assert seen == predictions and set(predictions) <= set(LABELS)
    by_index = dict(predict(rank, frozen, inject, batches()))
    assert sorted(by_index) == list(range(11))
    assert predictions == [by_index[i] for i in range(11)]
    assert len(set(predictions)) > 1  # otherwise no order would show


def test_greedy_predictions_are_what_the_model_generates(model, greedy, frozen, inject, trained):
    predictions = dict(predict(greedy, frozen, inject, batches()))
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
        found = predict(rank, frozen, inject, [(batch, indices)])
        assert [text for _, text in found] == best[: len(indices)]


def test_the_prompt_reaches_the_predictions(greedy, frozen, inject):
    def without(batch):
        return Injection()

    bare = dict(predict(greedy, frozen, without, batches()))
    assert bare != dict(predict(greedy, frozen, inject, batches()))


def test_a_shape_is_compiled_once(model, frozen, inject):
    fresh = rank_predictor(model, LABEL_IDS, LABELS)
    for _ in range(2):
        list(predict(fresh, frozen, inject, batches((12, 8, 8))))
    assert fresh.run._cache_size() == 2


def test_answers_come_before_the_next_batch_is_asked_for(rank, frozen, inject):
    asked = []

    def counted():
        for batch in batches():
            asked.append(batch)
            yield batch

    answers = predict(rank, frozen, inject, counted())
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
        program = jax.jit(
            lambda frozen, injection, tokens, key: label_log_likelihoods(
                model, frozen, tokens, injection, jnp.asarray(LABEL_IDS)
            )
        )
        predictor = Predictor(run=program, read=lambda row: row.tobytes().hex())
        return evaluate(predictor, frozen, inject, batches(), lambda rows: {"n": len(rows)})

    before = measure(inject)
    _, path = save_prompt(tmp_path / "best", soft_prompt_array(trained), PromptMetadata())
    jax.clear_caches()
    prompt, _ = load_prompt(path)
    assert measure(functools.partial(METHOD.apply, soft_prompt_variables(prompt))) == before
    nudged = soft_prompt_variables(np.nextafter(prompt, 1, dtype=np.float32))
    assert measure(functools.partial(METHOD.apply, nudged)) != before


def test_sampling_depends_on_the_seed_and_the_batch(model, frozen, inject):
    options = DecodingOptions(max_length=5, method="sample")
    sampler = decoding_predictor(model, options, words)
    first = next(batches())
    draws = [list(predict(sampler, frozen, inject, [first] * 2, seed=seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][:4] != draws[0][4:]


def test_an_empty_split_is_told(rank, frozen, inject):
    with pytest.raises(UserError, match="split is empty"):
        evaluate(rank, frozen, inject, [], lambda predictions: {})


def test_ranking_without_labels_is_told(model):
    with pytest.raises(UserError, match="needs the task's labels"):
        rank_predictor(model, np.zeros((0, 1), np.int32), ())


def test_of_equal_labels_the_first_is_predicted(model, frozen, inject):
    same = np.repeat(LABEL_IDS[:1], 3, axis=0)
    predictor = rank_predictor(model, same, ("b", "a", "c"))
    assert {text for _, text in predict(predictor, frozen, inject, batches())} == {"b"}


def test_ranked_rows_hold_the_score_of_each_label(rank, frozen, inject):
    for _, row in predict_rows(rank, frozen, inject, batches()):
        scores = rank.scores(row)
        assert list(scores) == list(LABELS)
        assert rank.read(row) == max(scores, key=scores.__getitem__)
