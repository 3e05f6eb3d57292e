import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning.models import attention, flash_attention_gpu
from prompt_tuning.models import flash_attention as module
from prompt_tuning.models.flash_attention import bias_tables, cost, flash_attention
from prompt_tuning.parallel.accelerators import ACCELERATORS
from prompt_tuning.planning import compilers


def plain(bias, mask):
    """The same in four lines, with a bias of [heads, target, source]."""

    def attend(query, key, value):
        distances = jnp.arange(key.shape[2])[None, :] - jnp.arange(query.shape[2])[:, None]
        logits = jnp.einsum("bhtk,bhsk->bhts", query, key)
        logits += bias[:, distances + query.shape[2] - 1]
        logits += attention.mask_bias(mask)[:, None, None, :]
        return jnp.einsum("bhts,bhsk->bhtk", jax.nn.softmax(logits), value)

    return attend


def flash(bias, mask):
    def attend(query, key, value):
        tables = bias_tables(bias, query.shape[2], key.shape[2])
        return flash_attention(query, key, value, tables, mask)

    return attend


def with_gradients(attend):
    @jax.jit
    def both(inputs, cotangent):
        output, backward = jax.vjp(attend, *inputs)
        return [output, *backward(cotangent)]

    return both


@pytest.fixture(params=["tpu", "gpu"])
def platform(request, monkeypatch):
    """Replaces the kernels of a platform by plain JAX operations, which CPUs do for TPUs anyway."""

    def on_gpu(backward, *operands):
        kernels = flash_attention_gpu.backward if backward else flash_attention_gpu.forward
        return kernels(*operands, interpret=True)

    if request.param == "gpu":
        monkeypatch.setattr(module, "_call", on_gpu)


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize(
    ("heads", "target", "source", "head_dim"),
    [
        (4, 20, 20, 64),  # two groups of heads; lengths that aren't multiples of 128
        (3, 260, 281, 16),  # one group; prefixes of 21; three blocks of queries, the last not full
        (1, 128, 20, 128),
    ],
)
def test_equals_plain_attention(monkeypatch, heads, target, source, head_dim):
    monkeypatch.setattr(module, "BLOCK_LOGITS", 128 * 128)
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    query, cotangent = normal(2, heads, target, head_dim), normal(2, heads, target, head_dim)
    key, value = normal(2, heads, source, head_dim), normal(2, heads, source, head_dim)
    inputs = (query / head_dim**0.5, key, value)
    bias = jnp.asarray(2 * normal(heads, target + source - 1))
    # The first example ends with padding, and the second has no visible key.
    mask = jnp.stack([np.arange(source) < source - 5, np.zeros(source, bool)])
    expected = with_gradients(plain(bias, mask))(inputs, cotangent)
    actual = with_gradients(flash(bias, mask))(inputs, cotangent)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_the_bias_cannot_be_trained():
    with pytest.raises(ValueError, match='attention="plain"'):
        jax.grad(lambda bias: bias_tables(bias, 2, 2).sum())(jnp.ones((1, 3)))


def test_cost_of_products_and_arrays():
    # Without padding: 4 * 128 * 128 * 64 FLOPs a head forward, and 2.5 times as many backward.
    forward = cost(2, 3, 128, 128, 64, 2, backward=False)
    assert forward.flops == 6 * 4 * 128 * 128 * 64
    assert cost(2, 3, 128, 128, 64, 2, backward=True).flops == 2.5 * forward.flops
    # Four arrays of 128 x 64 in bfloat16, two statistics a query, and the tables.
    assert forward.bytes_accessed == 6 * (4 * 128 * 64 * 2 + 2 * 128 * 4) + 3 * 128 * 128 * 4
    # Where blocks end: 612 is padded to 640.
    assert cost(1, 1, 612, 612, 64, 2, backward=False).flops == 4 * 640 * 640 * 64


CASES = {  # devices over (data, model), heads, queries, keys, dtype
    "v4": [
        ((1, 1), 6, 612, 612, "bfloat16"),
        ((1, 1), 6, 2148, 2148, "bfloat16"),
    ],
    "v5e": [
        ((4, 1), 6, 612, 612, "float32"),
        ((4, 4), 12, 612, 632, "bfloat16"),  # three heads a device, and a prefix
        ((1, 1), 8, 4196, 4196, "bfloat16"),
    ],
    "v5p": [
        ((2, 2), 12, 612, 612, "bfloat16"),
        ((1, 1), 2, 4196, 4196, "bfloat16"),
    ],
    "v6e": [
        ((2, 2), 12, 612, 612, "bfloat16"),
        ((1, 1), 2, 4196, 4196, "bfloat16"),
    ],
    "A100-40GB": [
        ((1, 1), 6, 612, 632, "float32"),
    ],
    "H100": [
        ((2, 2), 12, 612, 632, "bfloat16"),
        ((1, 1), 2, 4196, 4196, "bfloat16"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compiles_for(name):
    accelerator = next(each for each in ACCELERATORS if each.name == name)
    if problem := compilers.missing(accelerator):
        pytest.skip(problem)
    environment = {**os.environ, **compilers.environment(accelerator, 16)}
    result = subprocess.run(
        [sys.executable, __file__, name], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["compiled"] * len(CASES[name])


def compile_case(accelerator, mesh_shape, heads, target, source, dtype):
    """Compiles attention and its gradients, divided over a mesh."""
    batch, head_dim = 8, 64
    devices = np.array(compilers.devices_of(accelerator, int(np.prod(mesh_shape))))
    mesh = Mesh(devices.reshape(mesh_shape), ("data", "model"))
    by_head = PartitionSpec("data", "model")
    attend = jax.shard_map(
        flash_attention,
        mesh=mesh,
        in_specs=(by_head, by_head, by_head, PartitionSpec("model"), PartitionSpec("data")),
        out_specs=by_head,
        check_vma=False,
    )

    def both(query, key, value, bias, mask):
        tables = bias_tables(bias, target, source)
        output, backward = jax.vjp(lambda *each: attend(*each, tables, mask), query, key, value)
        return output, backward(output)

    def shape(spec, lengths, dtype=dtype):
        return jax.ShapeDtypeStruct(lengths, dtype, sharding=NamedSharding(mesh, spec))

    analysis = compilers.compiled(
        jax.jit(both).lower(
            shape(by_head, (batch, heads, target, head_dim)),
            shape(by_head, (batch, heads, source, head_dim)),
            shape(by_head, (batch, heads, source, head_dim)),
            shape(PartitionSpec("model"), (heads, target + source - 1), "float32"),
            shape(PartitionSpec("data"), (batch, source), "bool"),
        )
    )
    logits = batch * heads * target * source * 4 // devices.size  # bytes in float32
    assert analysis.temporaries < logits / 2, f"{analysis.temporaries / logits:.2f} of the logits"
    assert not list(analysis.program.collectives(mesh))
    print("compiled")


if __name__ == "__main__":
    for case in CASES[sys.argv[1]]:
        compile_case(next(each for each in ACCELERATORS if each.name == sys.argv[1]), *case)
