"""Rank classification against the plain way: a whole forward pass for each label."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.evaluation import rank
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import Encoder

LABELS = [[7, 8, 9, 1], [5, 1], [40, 41, 1]]
LABEL_IDS = np.array([[7, 8, 9, 1], [5, 1, 0, 0], [40, 41, 1, 0]], np.int32)


label_log_likelihoods = jax.jit(rank.label_log_likelihoods, static_argnums=0)


@partial(jax.jit, static_argnums=0)
def logits_of(model, frozen, batch, injection):
    return model.apply({"params": frozen}, batch, injection)


@pytest.fixture(scope="module")
def tokens():
    tokens = np.random.default_rng(0).integers(2, 64, (3, 10)).astype(np.int32)
    tokens[1, 6:] = 0
    return jnp.asarray(tokens)


@pytest.fixture(params=["no prompt", "one prompt", "a prompt an example"])
def injection(request):
    rows = {"no prompt": None, "one prompt": 1, "a prompt an example": 3}[request.param]
    if rows is None:
        return Injection()
    return Injection(encoder_prompt=jax.random.normal(jax.random.key(1), (rows, 4, 16)))


def test_scores_are_those_of_whole_forward_passes(model, frozen, tokens, injection):
    scores = label_log_likelihoods(model, frozen, tokens, injection, jnp.asarray(LABEL_IDS))
    for column, label in enumerate(LABELS):
        # Zeros after the label keep one shape for all; the decoder is causal.
        inputs = jnp.zeros((3, 4), jnp.int32).at[:, 1 : len(label)].set(jnp.array(label[:-1]))
        batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": inputs}
        log_p = jax.nn.log_softmax(logits_of(model, frozen, batch, injection))
        expected = sum(log_p[:, i, token] for i, token in enumerate(label))
        np.testing.assert_allclose(scores[:, column], expected, rtol=1e-5)
    assert np.ptp(scores, axis=1).min() > 0.1  # the labels aren't told apart by rounding alone


def test_padding_of_the_labels_changes_nothing(model, frozen, tokens):
    wider = np.pad(LABEL_IDS, ((0, 0), (0, 3)))
    scores, padded = (
        label_log_likelihoods(model, frozen, tokens, Injection(), jnp.asarray(ids))
        for ids in (LABEL_IDS, wider)
    )
    np.testing.assert_allclose(scores, padded, rtol=1e-5)


def test_the_encoder_runs_once_on_the_batch_itself(model, frozen, tokens):
    inputs = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, Encoder) and context.method_name == "__call__":
            inputs.append(args[0].shape)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(
            partial(rank.label_log_likelihoods, model), frozen, tokens, Injection(), LABEL_IDS
        )
    assert inputs == [(3, 10, 16)]
