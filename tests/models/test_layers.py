import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.models import layers
from prompt_tuning.models.activation_layout import ONE_DEVICE

RNG = np.random.default_rng(0)


def plain_norm(x, scale):
    return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6) * scale


def plain_gated(gate, linear):
    return jax.nn.gelu(gate) * linear


@pytest.mark.parametrize(
    ("ours", "plain", "shapes"),
    [
        (
            lambda x, scale: layers.rms_normed(x, scale, 1e-6, ONE_DEVICE),
            plain_norm,
            [(2, 3, 8), (8,)],
        ),
        (lambda *x: layers._gated("gelu_tanh", *x), plain_gated, [(2, 3, 8)] * 2),
        (lambda *x: layers._gated("gelu_tanh", *x), plain_gated, [(2, layers._WIDE)] * 2),
    ],
)
def test_gradients_are_those_of_the_formula(ours, plain, shapes):
    inputs = [jnp.asarray(RNG.standard_normal(shape, np.float32)) for shape in shapes]
    expected, their_backward = jax.vjp(plain, *inputs)
    found, backward = jax.vjp(ours, *inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    cotangent = jnp.asarray(RNG.standard_normal(found.shape, np.float32))
    for one, other in zip(backward(cotangent), their_backward(cotangent), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
