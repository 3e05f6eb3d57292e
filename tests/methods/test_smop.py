"""How a prompt is picked: the equation, padding, and the noise of training."""

import jax
import jax.numpy as jnp
import numpy as np
from small_configs import TINY

from prompt_tuning.methods.smop import SMoP
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.t5 import T5
from prompt_tuning.training.losses import LossOptions
from prompt_tuning.training.step import prompt_loss_fn

NUMBERS = np.random.default_rng(0)
METHOD = SMoP(length=4, embed_dim=TINY.embed_dim, prompts=3, noise=2.0)
TRAINED = METHOD.init(jax.random.key(0), {})
ROUTED = METHOD.apply(TRAINED, {}).encoder_prompt_mixture


def test_each_input_gets_the_likeliest_prompt_times_its_probability():
    embedded = jnp.asarray(NUMBERS.normal(size=(9, 5, TINY.embed_dim)), jnp.float32)
    mask = jnp.arange(5) < NUMBERS.integers(1, 6, (9, 1))
    found = ROUTED.prompt(embedded, mask)
    picked = set()
    for row in range(9):
        x = np.asarray(embedded)[row][np.asarray(mask)[row]].mean(axis=0)
        logits = x @ np.asarray(TRAINED["params"]["router"])
        shares = np.exp(logits) / np.exp(logits).sum()
        prompt = np.asarray(TRAINED["params"]["prompts"]).reshape(3, 4, -1)[shares.argmax()]
        np.testing.assert_allclose(found[row], shares.max() * prompt, rtol=1e-5, atol=1e-6)
        picked.add(int(shares.argmax()))
    assert len(picked) > 1
    empty = ROUTED.prompt(embedded[:1], jnp.zeros((1, 5), bool))  # a row that pads the batch
    assert np.isfinite(empty).all()


def test_noise_is_only_in_training_and_of_the_step_s_key():
    model, params = T5(TINY), init_params(TINY, jax.random.key(0))
    tokens = jnp.asarray(NUMBERS.integers(2, 20, (8, 5)), jnp.int32)
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": tokens,
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": jnp.ones((8, 5)),
    }
    losses = {}
    for noise in (0.0, 2.0):
        method = METHOD.clone(noise=noise)
        loss = jax.jit(prompt_loss_fn(model, method, LossOptions()))
        losses[noise] = [
            float(loss(TRAINED, params, batch, jax.random.key(seed))[0]) for seed in (1, 2, 1)
        ]
    assert losses[0.0][0] == losses[0.0][1]
    assert losses[2.0][0] == losses[2.0][2] != losses[2.0][1]
    forward = jax.jit(model.apply)
    found, expected = (
        forward({"params": params}, batch, method.apply(TRAINED, {}))
        for method in (METHOD, METHOD.clone(noise=0.0))
    )
    np.testing.assert_array_equal(found, expected)
