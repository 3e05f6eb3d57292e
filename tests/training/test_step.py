import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.methods.prompt import SoftPrompt
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.t5 import T5
from prompt_tuning.training import step as step_lib
from prompt_tuning.training.losses import LossOptions


def linear_loss(trained, frozen, batch, key):
    """Squares of a linear map's errors; `key` perturbs them where the batch asks for noise."""
    errors = batch["x"] @ (frozen["w"] + trained["delta"]) - batch["y"]
    errors += batch["noise"] * jax.random.normal(key, errors.shape)
    return jnp.sum(batch["weight"] * errors**2), jnp.sum(batch["weight"])


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    frozen = {"w": jnp.asarray(rng.normal(size=4), jnp.float32)}
    batch = {
        "x": rng.normal(size=(8, 4)).astype(np.float32),
        "y": rng.normal(size=8).astype(np.float32),
        "noise": np.zeros(8, np.float32),
        "weight": np.array([1, 1, 0, 1, 2, 1, 0, 1], np.float32),
    }
    return frozen, batch


def new_state(optimizer):
    return step_lib.TrainState.create({"delta": jnp.zeros(4)}, optimizer)


def test_one_step_is_gradient_descent_on_the_weighted_mean(problem):
    frozen, batch = problem
    optimizer = optax.sgd(0.1)
    train_step = step_lib.make_train_step(linear_loss, optimizer)
    state, metrics = train_step(new_state(optimizer), frozen, batch, jax.random.key(0))

    errors = batch["x"] @ np.asarray(frozen["w"]) - batch["y"]
    gradient = 2 * (batch["weight"] * errors) @ batch["x"] / 7
    np.testing.assert_allclose(state.trained["delta"], -0.1 * gradient, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], batch["weight"] @ errors**2 / 7, rtol=1e-5)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-5)
    assert metrics["weight_sum"] == 7
    assert state.step == 1


@pytest.mark.parametrize("accumulation_steps", [2, 4, 8])
def test_accumulation_changes_nothing_but_rounding(problem, accumulation_steps):
    frozen, batch = problem
    optimizer = optax.sgd(0.1)
    whole, whole_metrics = step_lib.make_train_step(linear_loss, optimizer)(
        new_state(optimizer), frozen, batch, jax.random.key(0)
    )
    parts, parts_metrics = step_lib.make_train_step(linear_loss, optimizer, accumulation_steps)(
        new_state(optimizer), frozen, batch, jax.random.key(0)
    )
    np.testing.assert_allclose(parts.trained["delta"], whole.trained["delta"], rtol=1e-5)
    for name, value in whole_metrics.items():
        np.testing.assert_allclose(parts_metrics[name], value, rtol=1e-5)


def test_frozen_weights_stay_and_random_numbers_follow_the_step(problem):
    frozen, batch = problem
    batch = {**batch, "noise": np.ones(8, np.float32)}
    before = np.array(frozen["w"])
    optimizer = optax.sgd(0.0)
    train_step = step_lib.make_train_step(linear_loss, optimizer)
    losses = []
    for _ in range(2):
        state = new_state(optimizer)
        for _ in range(3):
            state, metrics = train_step(state, frozen, batch, jax.random.key(7))
            losses.append(float(metrics["loss"]))
    assert losses[:3] == losses[3:]
    assert len(set(losses)) == 3
    np.testing.assert_array_equal(frozen["w"], before)


def test_microbatches_draw_different_random_numbers(problem):
    frozen, batch = problem
    batch = {**jax.tree.map(np.zeros_like, batch), "noise": np.ones(8, np.float32)}
    batch["weight"] = np.ones(8, np.float32)
    optimizer = optax.sgd(0.0)
    train_step = step_lib.make_train_step(linear_loss, optimizer, 8)
    _, metrics = train_step(new_state(optimizer), frozen, batch, jax.random.key(0))
    key = jax.random.fold_in(jax.random.key(0), 0)
    draws = [jax.random.normal(jax.random.fold_in(key, i), (1,)) for i in range(8)]
    np.testing.assert_allclose(metrics["loss"], np.mean(np.square(draws)), rtol=1e-5)


@pytest.mark.parametrize("bad", ["loss", "update"])
def test_divergence_shows_in_the_metrics(problem, bad):
    frozen, batch = problem
    optimizer = optax.sgd(np.inf if bad == "update" else 0.1)
    if bad == "loss":
        batch["y"] = np.full(8, np.nan, np.float32)
    train_step = step_lib.make_train_step(linear_loss, optimizer)
    _, metrics = train_step(new_state(optimizer), frozen, batch, jax.random.key(0))
    assert bool(jnp.isfinite(metrics["loss"])) == (bad == "update")
    assert not jnp.isfinite(metrics["update_norm"])


def test_unrolled_layers_need_less_memory_than_xla_would_take_on_a_cpu():
    config = T5Config(
        name="unrolled",
        vocab_size=64,
        embed_dim=128,
        num_heads=4,
        head_dim=32,
        mlp_dim=256,
        num_encoder_layers=4,
        num_decoder_layers=4,
    )
    method, optimizer = SoftPrompt(length=4, embed_dim=config.embed_dim), optax.sgd(0.1)
    tokens = jnp.ones((2, 8), jnp.int32)
    batch = {
        "encoder_input_tokens": tokens,
        "decoder_input_tokens": tokens,
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": jnp.ones((2, 8)),
    }
    state = step_lib.TrainState.create(method.init(jax.random.key(0), batch), optimizer)
    loss_fn = step_lib.prompt_loss_fn(T5(config, Compute(unroll=0)), method, LossOptions())
    step = step_lib.make_train_step(loss_fn, optimizer)
    lowered = step.lower(state, abstract_params(config), batch, jax.random.key(0))

    def workspace(options: dict[str, str]) -> int:
        return lowered.compile(options).memory_analysis().temp_size_in_bytes

    ours = workspace({})
    theirs = workspace({"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_CONCURRENCY_OPTIMIZED"})
    assert ours < 0.8 * theirs
