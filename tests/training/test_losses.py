import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.training import losses


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 11)).astype(np.float32) * 3
    targets = rng.integers(0, 11, size=(3, 4)).astype(np.int32)
    weights = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [0.5, 0, 0, 0]], np.float32)
    return jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights)


def reference(logits, targets, weights, z_loss, label_smoothing):
    """Sums token by token in float64, straight from the definition."""
    logits, targets, weights = map(np.asarray, (logits, targets, weights))
    total = 0.0
    vocab = logits.shape[-1]
    for index in np.ndindex(targets.shape):
        row = logits[index].astype(np.float64)
        log_z = np.log(np.exp(row).sum())
        goal = np.full(vocab, label_smoothing / (vocab - 1))
        goal[targets[index]] = 1 - label_smoothing
        entropy = -sum(p * np.log(p) for p in goal if p > 0)
        token = -(goal * (row - log_z)).sum() - entropy + z_loss * log_z**2
        total += weights[index] * token
    return total


@pytest.mark.parametrize(
    ("z_loss", "label_smoothing"), [(0.0, 0.0), (1e-2, 0.0), (0.0, 0.1), (1e-4, 0.2)]
)
def test_against_definition(case, z_loss, label_smoothing):
    loss, weight = losses.cross_entropy(*case, z_loss=z_loss, label_smoothing=label_smoothing)
    assert weight == 6.5
    np.testing.assert_allclose(loss, reference(*case, z_loss, label_smoothing), rtol=1e-5)


def test_padding_has_no_gradient(case):
    logits, targets, weights = case
    gradient = jax.grad(lambda x: losses.cross_entropy(x, targets, weights)[0])(logits)
    assert jnp.all(gradient[weights == 0] == 0)
    assert jnp.all(jnp.abs(gradient).sum(-1)[weights > 0] > 0)


def test_bfloat16_logits_are_summed_in_float32(case):
    logits, targets, weights = case
    loss, weight = losses.cross_entropy(jnp.asarray(logits, jnp.bfloat16), targets, weights)
    assert loss.dtype == weight.dtype == jnp.float32
    np.testing.assert_allclose(loss, reference(*case, 0.0, 0.0), rtol=1e-2)


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0])
def test_smoothing_leaves_some_mass_to_the_target(label_smoothing):
    with pytest.raises(UserError, match=f"label_smoothing is {label_smoothing}; it must be"):
        losses.LossOptions(label_smoothing=label_smoothing)
