"""LoRA's variants, by hand: one projection of one layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_configs import TINY

from prompt_tuning.errors import UserError
from prompt_tuning.methods.base import bind
from prompt_tuning.methods.dora import DoRA
from prompt_tuning.methods.vera import VeRA
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.layers import Projection
from prompt_tuning.models.quantization import dequantize_params, quantize_params
from prompt_tuning.models.targets import kernel_norms, projections

(TARGET,) = (each for each in projections(TINY) if each.name == "decoder/self_attention/out")
NUMBERS = np.random.default_rng(0)
KERNELS = NUMBERS.normal(size=(TARGET.layers, *TARGET.inputs, *TARGET.outputs)).astype(np.float32)
X = jnp.asarray(NUMBERS.normal(size=(3, 4, *TARGET.inputs)), jnp.float32)
LAYER = 1


def frozen(**kernel):
    return {"decoder": {"layers": {"self_attention": {"out": kernel}}}}


def moved(trained):
    return jax.tree.map(lambda x: x + NUMBERS.normal(size=x.shape).astype(np.float32), trained)


def projected(injection):
    """What a layer's projection of X gives."""
    low_rank = jax.tree.map(lambda leaf: leaf[LAYER], injection.low_rank[TARGET.name])
    module = Projection(
        compute=Compute(), spec="bthk,hkd->btd", shape=KERNELS.shape[1:], stddev=1.0
    )
    return module.apply({"params": {"kernel": jnp.asarray(KERNELS[LAYER])}}, X, low_rank)


def flat(x, rows):
    return np.asarray(x, np.float64).reshape(rows, -1)


def test_magnitudes_are_of_what_each_output_feature_reads():
    start = {"initializer": lambda target: kernel_norms(frozen(kernel=KERNELS), target)}
    method = DoRA(targets=(TARGET,), rank=2, alpha=6.0, **start)
    trained = method.init(jax.random.key(0), {})
    unchanged = np.einsum("bthk,hkd->btd", X, KERNELS[LAYER])
    np.testing.assert_allclose(projected(method.apply(trained, {})), unchanged, rtol=1e-5)

    trained = moved(trained)
    down, up, magnitude = (
        np.asarray(trained["params"][f"{TARGET.name}/{part}"][LAYER])
        for part in ("down", "up", "magnitude")
    )
    changed = flat(KERNELS[LAYER], 10) + 3.0 * flat(down, 10) @ flat(up, 2)
    changed *= magnitude / np.linalg.norm(changed, axis=0)
    found = projected(method.apply(trained, {}))
    np.testing.assert_allclose(found, X.reshape(3, 4, 10) @ changed, rtol=2e-5, atol=1e-5)


def test_the_norm_is_a_constant_in_the_backward_pass():
    method = DoRA(targets=(TARGET,), rank=2)
    params = moved(method.init(jax.random.key(0), {}))["params"]
    down, up, magnitude = (params[f"{TARGET.name}/{part}"] for part in ("down", "up", "magnitude"))

    def kernel(down):
        return KERNELS[LAYER] + jnp.tensordot(down[LAYER], up[LAYER], 1) * method.scaling

    norms = np.linalg.norm(kernel(down), axis=(0, 1))

    def expected(down):
        return jnp.sum(jnp.einsum("bthk,hkd->btd", X, kernel(down)) * magnitude[LAYER] / norms)

    def loss(down):
        return jnp.sum(
            projected(method.apply({"params": {**params, f"{TARGET.name}/down": down}}, {}))
        )

    np.testing.assert_allclose(jax.grad(loss)(down), jax.grad(expected)(down), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("to", ["int8", "nf4"])
def test_norms_of_quantized_kernels_are_those_of_what_they_decode_to(to):
    compute = Compute(quantization=to, quantization_block=4)
    quantized = quantize_params(frozen(kernel=jnp.asarray(KERNELS)), compute)
    expected = kernel_norms(dequantize_params(quantized), TARGET)
    np.testing.assert_allclose(kernel_norms(quantized, TARGET), expected, rtol=1e-6)


def test_scales_of_shared_random_matrices():
    targets = tuple(each for each in projections(TINY) if each.layers == TARGET.layers)
    method = VeRA(targets=targets, rank=3)
    method, trained = bind(method, method.init(jax.random.key(5), {}))
    assert not any(name.endswith(("up", "down")) for name in trained["params"])
    widest = 16  # of the feed-forward block
    down, up = (np.asarray(method.constants["projections"][part]) for part in ("down", "up"))
    assert down.shape == (widest, 3) and up.shape == (3, widest)
    unchanged = np.einsum("bthk,hkd->btd", X, KERNELS[LAYER])
    np.testing.assert_array_equal(trained["params"][f"{TARGET.name}/d"], np.full((2, 3), 0.1, "f4"))
    np.testing.assert_allclose(projected(method.apply(trained, {})), unchanged, rtol=1e-5)

    trained = moved(trained)
    d, b = (np.asarray(trained["params"][f"{TARGET.name}/{part}"][LAYER]) for part in "db")
    added = X.reshape(3, 4, 10) @ down[:10] * d @ up[:, :12] * b
    found = projected(method.apply(trained, {}))
    np.testing.assert_allclose(found, unchanged + added, rtol=1e-4, atol=1e-4)
    # The same matrices in every run.
    other, _ = bind(method.method, method.method.init(jax.random.key(6), {}))
    assert other == method
    with pytest.raises(UserError, match="vera.rank is 0; it must be at least 1"):
        VeRA(targets=targets, rank=0)
