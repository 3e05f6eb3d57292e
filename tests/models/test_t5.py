"""The network: what a prompt does to it, masks, and the options that mustn't change results.

Parity with `transformers` is in tests/checkpoints/test_huggingface.py, with the paper's own code
in test_t5x.py.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_configs import SMALL as CONFIG

from prompt_tuning.models.attention import relative_position_buckets
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5

PROMPT = 4


@pytest.fixture(scope="module")
def frozen():
    return init_params(CONFIG, jax.random.key(0))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    source = rng.integers(2, 50, (3, 7)).astype(np.int32)
    source[1, 4:] = 0
    source[2, 1:] = 0
    target = rng.integers(2, 50, (3, 5)).astype(np.int32)
    target[:, 0] = 0
    return {
        "encoder_input_tokens": jnp.asarray(source),
        "decoder_input_tokens": jnp.asarray(target),
    }


@pytest.fixture(scope="module")
def prompt():
    return jax.random.normal(jax.random.key(1), (1, PROMPT, CONFIG.embed_dim))


@functools.partial(jax.jit, static_argnames=("config", "compute"))
def _logits(config, frozen, batch, injection=Injection(), key=None, compute=Compute()):
    rngs = None if key is None else {"dropout": key}
    return T5(config, compute).apply(
        {"params": frozen}, batch, injection, deterministic=key is None, rngs=rngs
    )


@functools.partial(jax.jit, static_argnames=("config", "compute"))
def _prompt_gradient(config, frozen, batch, prompt, compute=Compute()):
    def loss(prompt):
        logits = T5(config, compute).apply(
            {"params": frozen}, batch, Injection(encoder_prompt=prompt)
        )
        return jax.nn.logsumexp(logits).sum()

    return jax.grad(loss)(prompt)


def test_logits_are_float32_for_every_target_position(frozen, batch, prompt):
    logits = _logits(CONFIG, frozen, batch, Injection(encoder_prompt=prompt))
    assert logits.shape == (3, 5, 50)
    assert logits.dtype == jnp.float32


def test_a_prompt_gets_a_gradient_in_each_position(frozen, batch, prompt):
    gradient = _prompt_gradient(CONFIG, frozen, batch, prompt)
    assert gradient.shape == prompt.shape
    assert (jnp.abs(gradient).max(axis=-1) > 0).all()


def test_gradient_of_the_prompt_computes_none_of_the_weights(frozen, batch, prompt):
    """What is differentiated is the prompt: the products of weight gradients aren't compiled."""

    def loss(trained, frozen):
        injection = Injection(encoder_prompt=trained)
        return T5(CONFIG).apply({"params": frozen}, batch, injection).sum()

    def flops(function):
        return jax.jit(function).lower(prompt, frozen).compile().cost_analysis()["flops"]

    assert flops(jax.grad(loss)) < 0.8 * flops(jax.grad(loss, argnums=(0, 1)))


def test_an_empty_injection_is_no_prompt(frozen, batch, prompt):
    plain = _logits(CONFIG, frozen, batch)
    assert not jnp.allclose(plain, _logits(CONFIG, frozen, batch, Injection(encoder_prompt=prompt)))
    hidden = Injection(encoder_prompt=prompt, encoder_prompt_mask=jnp.zeros((1, PROMPT), bool))
    # Distances within the input are the same behind a prompt that nobody sees.
    np.testing.assert_allclose(_logits(CONFIG, frozen, batch, hidden), plain, atol=1e-5)


def test_a_prompt_of_real_embeddings_is_the_text_itself(frozen, batch):
    tokens = jnp.asarray([[5, 6, 7, 8]])
    vectors = frozen["token_embedder"]["embedding"][tokens]
    text = jnp.concatenate([jnp.tile(tokens, (3, 1)), batch["encoder_input_tokens"]], axis=1)
    np.testing.assert_allclose(
        _logits(CONFIG, frozen, batch, Injection(encoder_prompt=vectors)),
        _logits(CONFIG, frozen, {**batch, "encoder_input_tokens": text}),
        atol=1e-5,
    )


def test_a_prompt_of_its_own_for_every_example(frozen, batch):
    prompts = jax.random.normal(jax.random.key(2), (3, PROMPT, CONFIG.embed_dim))
    together = _logits(CONFIG, frozen, batch, Injection(encoder_prompt=prompts))
    for row in range(3):
        alone = _logits(CONFIG, frozen, batch, Injection(encoder_prompt=prompts[row : row + 1]))
        np.testing.assert_allclose(together[row], alone[row], atol=1e-5)


def test_a_masked_prompt_position_is_not_seen(frozen, batch, prompt):
    mask = jnp.asarray([[True, True, False, True]])
    other = prompt.at[:, 2].set(100.0)
    np.testing.assert_array_equal(
        _logits(CONFIG, frozen, batch, Injection(encoder_prompt=prompt, encoder_prompt_mask=mask)),
        _logits(CONFIG, frozen, batch, Injection(encoder_prompt=other, encoder_prompt_mask=mask)),
    )


@pytest.mark.parametrize("prompted", [False, True])
def test_padding_changes_nothing(frozen, batch, prompt, prompted):
    injection = Injection(encoder_prompt=prompt) if prompted else Injection()
    padded = {
        "encoder_input_tokens": jnp.pad(batch["encoder_input_tokens"], ((0, 2), (0, 6))),
        "decoder_input_tokens": jnp.pad(batch["decoder_input_tokens"], ((0, 2), (0, 3))),
    }
    np.testing.assert_allclose(
        _logits(CONFIG, frozen, padded, injection)[:3, :5],
        _logits(CONFIG, frozen, batch, injection),
        atol=1e-5,
    )


def test_a_row_of_padding_alone_is_finite(frozen, batch):
    empty = {**batch, "encoder_input_tokens": jnp.zeros((3, 7), jnp.int32)}
    assert jnp.isfinite(_logits(CONFIG, frozen, empty)).all()


def test_the_decoder_is_causal(frozen, batch):
    changed = batch["decoder_input_tokens"].at[:, 3].set(9)
    before = _logits(CONFIG, frozen, batch)
    after = _logits(CONFIG, frozen, {**batch, "decoder_input_tokens": changed})
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert not jnp.allclose(before[:, 3:], after[:, 3:])


def test_several_targets_of_one_example_share_its_encoding(frozen, batch):
    """Two targets an example, as in rank classification, score as they do alone."""
    model, variables = T5(CONFIG), {"params": frozen}
    other = jnp.roll(batch["decoder_input_tokens"], 1, axis=0)
    encoded = model.apply(variables, batch["encoder_input_tokens"], method="encode")
    both = jnp.stack([batch["decoder_input_tokens"], other], axis=1).reshape(6, 5)
    logits = model.apply(variables, encoded, both, method="decode").reshape(3, 2, 5, 50)
    np.testing.assert_allclose(logits[:, 0], _logits(CONFIG, frozen, batch), atol=1e-5)
    alone = _logits(CONFIG, frozen, {**batch, "decoder_input_tokens": other})
    np.testing.assert_allclose(logits[:, 1], alone, atol=1e-5)


@pytest.mark.parametrize(
    "change", [{"unroll": 0}, {"unroll": 2}, {"remat": True}, {"remat": True, "unroll": 0}], ids=str
)
def test_how_layers_are_run_changes_nothing(frozen, batch, prompt, change):
    compute = Compute(**change)
    injection = Injection(encoder_prompt=prompt)
    np.testing.assert_allclose(
        _logits(CONFIG, frozen, batch, injection, compute=compute),
        _logits(CONFIG, frozen, batch, injection),
        atol=1e-5,
    )
    np.testing.assert_allclose(
        _prompt_gradient(CONFIG, frozen, batch, prompt, compute=compute),
        _prompt_gradient(CONFIG, frozen, batch, prompt),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"param_dtype": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param({"compute_dtype": "bfloat16"}, marks=pytest.mark.slow),
        {"matmul_dtype": "bfloat16"},
        {"param_dtype": "bfloat16", "compute_dtype": "bfloat16", "unroll": 0},
    ],
    ids=str,
)
def test_bfloat16_is_close_to_float32(frozen, batch, prompt, change):
    compute = Compute(**change)
    weights = jax.tree.map(lambda x: x.astype(compute.param_dtype), frozen)
    logits = _logits(CONFIG, weights, batch, Injection(encoder_prompt=prompt), compute=compute)
    expected = _logits(CONFIG, frozen, batch, Injection(encoder_prompt=prompt))
    assert logits.dtype == jnp.float32
    difference = jnp.linalg.norm(logits - expected) / jnp.linalg.norm(expected)
    assert 0 < difference < 0.03
    gradient = _prompt_gradient(CONFIG, weights, batch, prompt, compute=compute)
    expected = _prompt_gradient(CONFIG, frozen, batch, prompt)
    assert gradient.dtype == jnp.float32
    assert jnp.linalg.norm(gradient - expected) < 0.1 * jnp.linalg.norm(expected)


def test_weights_can_be_trained_too(frozen, batch):
    """Pre-training takes the gradient of every weight; compared with a finite difference."""

    def loss(frozen):
        return (T5(CONFIG).apply({"params": frozen}, batch) ** 2).mean()

    gradient = jax.jit(jax.grad(loss))(frozen)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    step = jax.tree.map(lambda x: 1e-3 * x, frozen)
    difference = jax.jit(loss)(jax.tree.map(jnp.add, frozen, step)) - jax.jit(loss)(
        jax.tree.map(jnp.subtract, frozen, step)
    )
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, step)))
    np.testing.assert_allclose(difference / 2, slope, rtol=2e-2)


def test_dropout(frozen, batch):
    compute = Compute(dropout_rate=0.2)
    plain = _logits(CONFIG, frozen, batch)
    np.testing.assert_array_equal(_logits(CONFIG, frozen, batch, compute=compute), plain)
    first = _logits(CONFIG, frozen, batch, key=jax.random.key(0), compute=compute)
    np.testing.assert_array_equal(
        first, _logits(CONFIG, frozen, batch, key=jax.random.key(0), compute=compute)
    )
    assert not jnp.allclose(first, plain)
    assert not jnp.allclose(
        first, _logits(CONFIG, frozen, batch, key=jax.random.key(1), compute=compute)
    )


def test_init_has_the_scales_of_t5():
    config = dataclasses.replace(CONFIG, embed_dim=64, mlp_dim=128, num_heads=4, head_dim=16)
    params = init_params(config, jax.random.key(0), embedding_stddev=0.05)
    layers = params["decoder"]["layers"]
    expected = {
        64**-0.5 * 16**-0.5: layers["self_attention"]["query"]["kernel"],
        64**-0.5: layers["encoder_decoder_attention"]["value"]["kernel"],
        128**-0.5: layers["mlp"]["wo"]["kernel"],
        0.05: params["token_embedder"]["embedding"],
    }
    for stddev, kernel in expected.items():
        np.testing.assert_allclose(kernel.std(), stddev, rtol=0.05)
    kernel = layers["mlp"]["wi_0"]["kernel"]
    assert not jnp.allclose(kernel[0], kernel[1])  # layers are drawn one by one
    assert (params["encoder"]["encoder_norm"]["scale"] == 1).all()


def test_relative_position_biases_are_scaled_and_nothing_else():
    plain, scaled = (
        init_params(CONFIG, jax.random.key(0), relative_bias_stddev=stddev)
        for stddev in (None, 3.0)
    )
    for (path, old), new in zip(
        jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(scaled), strict=True
    ):
        if "rel_embedding" in jax.tree_util.keystr(path):
            np.testing.assert_allclose(np.std(new), 3.0, rtol=1e-4)
        else:
            np.testing.assert_array_equal(old, new)


def test_relative_position_buckets():
    """By hand, for 8 buckets and a largest distance of 16: 0, 1, then 2-3, 4-5... widening."""
    distance = jnp.asarray([0, 1, 2, 3, 4, 6, 7, 8, 15, 16, 1000])
    one_way = relative_position_buckets(
        -distance, bidirectional=False, num_buckets=8, max_distance=16
    )
    assert one_way.tolist() == [0, 1, 2, 3, 4, 5, 5, 6, 7, 7, 7]
    future = relative_position_buckets(
        distance, bidirectional=False, num_buckets=8, max_distance=16
    )
    assert future.tolist() == [0] * len(distance)
    both = relative_position_buckets(
        jnp.asarray([-1000, -5, -1, 0, 1, 5, 1000]),
        bidirectional=True,
        num_buckets=8,
        max_distance=16,
    )
    assert both.tolist() == [3, 2, 1, 0, 5, 6, 7]
