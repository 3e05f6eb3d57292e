import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.training import optimizers


class NumpyAdafactor:
    """The optimizer written out for one matrix, in float64, from the papers' formulas."""

    def __init__(self, shape, *, rate, weight_decay, scaled):
        self.rate, self.weight_decay, self.scaled = rate, weight_decay, scaled
        self.factored = min(shape) >= 128
        self.rows, self.columns, self.full = np.zeros(shape[0]), np.zeros(shape[1]), np.zeros(shape)
        self.t = 0

    def step(self, p, g):
        self.t += 1
        beta = 1 - self.t**-0.8
        square = g**2 + 1e-30
        if self.factored:
            self.rows = beta * self.rows + (1 - beta) * square.mean(1)
            self.columns = beta * self.columns + (1 - beta) * square.mean(0)
            v = np.outer(self.rows, self.columns) / self.rows.mean()
        else:
            v = self.full = beta * self.full + (1 - beta) * square
        u = g / np.sqrt(v)
        u /= max(1.0, np.sqrt((u**2).mean()))
        rate = self.rate(self.t)
        if self.scaled:
            rate *= max(1e-3, np.sqrt((p**2).mean()))
        return (1 - self.weight_decay) * p - rate * u


def run(optimizer, p, gradients):
    state = optimizer.init(p)
    for g in gradients:
        updates, state = optimizer.update(g, state, p)
        p = optax.apply_updates(p, updates)
    return p, state


@pytest.mark.parametrize("shape", [(100, 32), (100, 256), (150, 256), (256, 130)])
@pytest.mark.parametrize("setting", ["paper", "pretraining"])
def test_adafactor_against_numpy(shape, setting):
    rng = np.random.default_rng(1)
    p = rng.normal(size=shape)
    gradients = [rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3) for _ in range(12)]
    if setting == "paper":
        optimizer = optimizers.adafactor()
        reference = NumpyAdafactor(shape, rate=lambda t: 0.3, weight_decay=1e-5, scaled=False)
    else:
        schedule = optimizers.rsqrt_decay(1.0, warmup_steps=4)
        optimizer = optimizers.adafactor(
            schedule, multiply_by_parameter_scale=True, weight_decay=0.0
        )
        reference = NumpyAdafactor(
            shape, rate=lambda t: 1 / np.sqrt(max(t, 4)), weight_decay=0.0, scaled=True
        )
    actual, _ = run(
        optimizer, jnp.asarray(p, jnp.float32), [jnp.asarray(g, jnp.float32) for g in gradients]
    )
    for g in gradients:
        p = reference.step(p, g)
    np.testing.assert_allclose(actual, p, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("length", "numbers"), [(100, 100 * 512), (150, 150 + 512)])
def test_only_a_prompt_of_at_least_128_tokens_is_factored(length, numbers):
    state = optimizers.adafactor().init(jnp.zeros((length, 512)))[0]
    sizes = [x.size for x in (state.v_row, state.v_col, state.v) if x.size > 1]
    assert sum(sizes) == numbers


def test_weight_decay_is_independent_of_the_learning_rate():
    p = jnp.full((3, 4), 7.0)
    for rate in (0.3, 0.003):
        moved, _ = run(optimizers.adafactor(rate, weight_decay=0.01), p, [jnp.zeros_like(p)])
        np.testing.assert_allclose(moved, 0.99 * p, rtol=1e-6)


def test_adamw_first_step_is_the_rate_and_its_decay():
    p = jnp.full((2,), 2.0)
    moved, _ = run(optimizers.adamw(0.1, weight_decay=0.5), p, [jnp.array([3.0, -0.01])])
    np.testing.assert_allclose(moved, [2 - 0.1 - 0.1, 2 + 0.1 - 0.1], rtol=1e-4)


@pytest.mark.parametrize("make", [optimizers.adafactor, optimizers.adamw])
def test_clipping_scales_larger_gradients_down_to_the_norm(make):
    p = {"a": jnp.ones((2,)), "b": jnp.ones((1,))}
    small = {"a": jnp.array([0.6, 0.0]), "b": jnp.array([0.8])}  # of norm 1
    large = {name: 50 * gradient for name, gradient in small.items()}
    clipped, plain = make(0.1, max_gradient_norm=2.0), make(0.1)
    two = {name: 2 * gradient for name, gradient in small.items()}
    as_large, _ = run(clipped, p, [small, large, small])
    as_two, _ = run(plain, p, [small, two, small])
    unclipped, _ = run(plain, p, [small, large, small])
    for name in p:
        np.testing.assert_allclose(as_large[name], as_two[name], rtol=1e-5)
    assert not np.allclose(as_large["b"], unclipped["b"], atol=1e-3)


@pytest.mark.parametrize("make", [optimizers.adafactor, optimizers.adamw])
def test_factors_are_learning_rates_of_their_own(make):
    p = {"params": {"prompt": jnp.ones((2,)), "encoder/query/up": jnp.ones((3,))}}
    gradients = [
        {"params": {"prompt": jnp.ones((2,)) * g, "encoder/query/up": jnp.ones((3,)) / g}}
        for g in (1.0, -3.0, 0.2)
    ]
    options = {"weight_decay": 0.0, "max_gradient_norm": 2.0}
    slow, fast = (run(make(rate, **options), p, gradients)[0]["params"] for rate in (0.02, 0.2))
    factors = {"*/up": 0.1, "*": 1.0}
    found = run(make(0.2, rate_factors=factors, **options), p, gradients)[0]["params"]
    np.testing.assert_allclose(found["prompt"], fast["prompt"], rtol=1e-6)
    np.testing.assert_allclose(found["encoder/query/up"], slow["encoder/query/up"], rtol=1e-5)
    assert not np.allclose(slow["encoder/query/up"], fast["encoder/query/up"])
    with pytest.raises(UserError, match="'down', which no .* are encoder/query/up, prompt"):
        make(0.2, rate_factors={"down": 0.1}).init(p)


def test_schedules():
    assert optimizers.constant(0.3)(12345) == 0.3
    warmup = optimizers.linear_warmup(0.4, 4)
    np.testing.assert_allclose([warmup(i) for i in range(6)], [0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    rsqrt = optimizers.rsqrt_decay(1.0, 100)
    np.testing.assert_allclose([rsqrt(0), rsqrt(99), rsqrt(399)], [0.1, 0.1, 0.05], rtol=1e-6)
    cosine = optimizers.cosine_decay(2.0, 10, warmup_steps=2, final_fraction=0.1)
    np.testing.assert_allclose(
        [cosine(i) for i in (0, 1, 5, 9, 20)], [1.0, 2.0, 1.1, 0.2, 0.2], rtol=1e-6
    )
