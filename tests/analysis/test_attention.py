"""Attention on a prompt against what is computed by hand, and where it must be even."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.analysis.attention import prompt_attention
from prompt_tuning.errors import UserError
from prompt_tuning.models.attention import relative_position_buckets
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.t5 import T5

CONFIG = T5Config(
    name="tiny",
    vocab_size=32,
    embed_dim=8,
    num_heads=2,
    head_dim=4,
    mlp_dim=8,
    num_encoder_layers=2,
    num_decoder_layers=1,
)
LENGTH = 3
RNG = np.random.default_rng(0)
PARAMS = jax.tree.map(
    lambda leaf: jnp.asarray(RNG.normal(scale=0.5, size=leaf.shape), jnp.float32),
    abstract_params(CONFIG),
)
PROMPT = RNG.normal(size=(LENGTH, 8)).astype(np.float32)
# Two examples of different lengths; the third row fills the batch up.
INPUTS = np.array([[5, 6, 7, 8, 1], [9, 1, 0, 0, 0], [5, 6, 7, 8, 1]], np.int32)
TARGETS = np.array([[4, 1], [1, 0], [4, 1]], np.int32)
WEIGHTS = np.array([[1, 1], [1, 0], [0, 0]], np.float32)
BATCH = {
    "encoder_input_tokens": INPUTS,
    "decoder_input_tokens": np.pad(TARGETS, ((0, 0), (1, 0)))[:, :-1],
    "decoder_loss_weights": WEIGHTS,
}


def first_layer(row):
    """The attention weights of the first encoder layer, [heads, query, key], without padding."""
    layer = jax.tree.map(lambda leaf: np.asarray(leaf[0]), PARAMS["encoder"]["layers"])
    embedding = np.asarray(PARAMS["token_embedder"]["embedding"])
    x = np.concatenate([PROMPT, embedding[INPUTS[row][INPUTS[row] != 0]]])
    normed = x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + CONFIG.norm_epsilon)
    normed = normed * layer["pre_attention_layer_norm"]["scale"]
    query, key = (
        np.einsum("td,dhk->thk", normed, layer["attention"][name]["kernel"])
        for name in ("query", "key")
    )
    places = np.arange(len(x))
    buckets = relative_position_buckets(
        jnp.asarray(places[None] - places[:, None]),
        bidirectional=True,
        num_buckets=32,
        max_distance=128,
    )
    bias = np.asarray(PARAMS["encoder"]["relpos_bias"]["rel_embedding"])[:, np.asarray(buckets)]
    logits = np.einsum("thk,shk->hts", query, key) + bias
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def test_shares_are_those_of_the_weights():
    found = prompt_attention(T5(CONFIG), PARAMS, PROMPT, [BATCH])
    by_hand = [first_layer(row)[..., :LENGTH].mean(axis=0) for row in (0, 1)]
    inputs = np.mean([weights[LENGTH:].mean(axis=0) for weights in by_hand], axis=0)
    prompt = np.mean([weights[:LENGTH].mean(axis=0) for weights in by_hand], axis=0)
    np.testing.assert_allclose(found.encoder_inputs[0], inputs, rtol=1e-4)
    np.testing.assert_allclose(found.encoder_prompt[0], prompt, rtol=1e-4)
    assert found.encoder_inputs.shape == (2, LENGTH) and found.decoder.shape == (1, LENGTH)
    assert found.even == pytest.approx((3 / 8 + 3 / 5) / 2)


def test_without_queries_and_positions_all_is_even():
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            jnp.zeros_like(leaf) if {"query", "relpos_bias"} & {p.key for p in path} else leaf
        ),
        PARAMS,
    )
    found = prompt_attention(T5(CONFIG), params, PROMPT, [BATCH, BATCH])
    for shares in (found.encoder_inputs, found.encoder_prompt, found.decoder):
        np.testing.assert_allclose(shares, found.even / LENGTH, rtol=1e-5)


def test_weights_are_handed_out_only_on_request_and_change_nothing():
    # Layers that are computed again in the backward pass, and unrolled ones, hand them out too.
    model = T5(CONFIG, Compute(remat=True, unroll=0))
    variables = {"params": PARAMS}
    batch = jax.tree.map(jnp.asarray, BATCH)
    logits = jax.jit(model.apply)(variables, batch)
    run = jax.jit(functools.partial(model.apply, mutable=["intermediates"]))
    again, state = run(variables, batch)
    assert isinstance(logits, jax.Array)
    np.testing.assert_allclose(logits, again, rtol=1e-5, atol=1e-5)
    (weights,) = state["intermediates"]["encoder"]["layers"]["attention"]["weights"]
    assert weights.shape == (2, 3, 2, 5, 5)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-5)


def test_no_examples_is_told():
    with pytest.raises(UserError, match="split is empty"):
        prompt_attention(T5(CONFIG), PARAMS, PROMPT, [])
