"""Rank classification against the plain way: a whole forward pass for each label."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.evaluation import rank
from prompt_tuning.models.encoder_decoder import Encoder
from prompt_tuning.models.injection import Injection

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


@pytest.mark.parametrize("labels_a_block", [1, 2, 3])
def test_blocks_of_labels_have_the_scores_of_all_at_once(
    model, frozen, tokens, injection, labels_a_block
):
    targets = jnp.broadcast_to(LABEL_IDS[None], (3, *LABEL_IDS.shape))
    score = jax.jit(rank.target_log_likelihoods, static_argnums=0, static_argnames="logit_bytes")
    whole = score(model, frozen, tokens, injection, targets)
    logit_bytes = labels_a_block * 3 * 4 * model.config.vocab_size * 4
    blocks = score(model, frozen, tokens, injection, targets, logit_bytes=logit_bytes)
    np.testing.assert_allclose(blocks, whole, rtol=1e-6)


def test_blocks_are_as_few_and_as_even_as_fit():
    gigabyte = 2**30
    assert rank._block_size(32, 2, 8, 32128, gigabyte) == 2
    assert rank._block_size(32, 150, 8, 32128, gigabyte) == 30  # 32 would fit; 5 blocks, not 4.7
    assert rank._block_size(32, 3, 8, 250112, 1) == 1


def test_a_label_that_begins_another_is_scored_by_its_own_end(model, frozen, tokens):
    """One that another begins with is no likelier for that: its end of sequence counts."""
    ids = jnp.array([[7, 1, 0], [7, 8, 1]], jnp.int32)
    both = label_log_likelihoods(model, frozen, tokens, Injection(), ids)
    for row, label in enumerate((ids[:1, :2], ids[1:])):
        alone = label_log_likelihoods(model, frozen, tokens, Injection(), label)
        np.testing.assert_allclose(both[:, row], alone[:, 0], rtol=1e-5)


def test_scores_are_corrected_as_asked(model, frozen, tokens):
    def scores(**options):
        given = rank.RankOptions(**options)
        return rank.label_scores(model, frozen, tokens, Injection(), jnp.asarray(LABEL_IDS), given)

    ids = jnp.asarray(LABEL_IDS)
    plain = label_log_likelihoods(model, frozen, tokens, Injection(), ids)
    np.testing.assert_allclose(scores(), plain, rtol=1e-6)
    np.testing.assert_allclose(
        scores(length_normalization=True), plain / np.array([4, 2, 3]), rtol=1e-6
    )
    nothing = label_log_likelihoods(model, frozen, jnp.array([[9, 1]]), Injection(), ids)
    np.testing.assert_allclose(scores(content_free=(9, 1)), plain - nothing, rtol=1e-5, atol=1e-5)
    both = scores(content_free=(9, 1), length_normalization=True)
    np.testing.assert_allclose(both, (plain - nothing) / np.array([4, 2, 3]), rtol=1e-5, atol=1e-5)
