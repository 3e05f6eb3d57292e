"""What is read out of compiled programs, against what was written into them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.planning.hlo import Collective, Program, Shape, _groups

LAYERS, BATCH, WIDTH = 3, 4, 8


ONE = jax.sharding.AbstractMesh((1,), ("model",))
TWO = jax.sharding.AbstractMesh((2,), ("model",))


def stack(weights, x):
    """Layers as a loop."""
    y, _ = jax.lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, weights)
    return y.sum()


@pytest.fixture(scope="module")
def gradient() -> Program:
    """The gradient of a stack of layers by its input, on one device."""
    weights, x = jnp.zeros((LAYERS, WIDTH, WIDTH)), jnp.zeros((BATCH, WIDTH))
    return Program(jax.jit(jax.grad(stack, 1)).lower(weights, x).compile().as_text(), ONE)


def test_products_are_counted_as_often_as_the_loop_runs(gradient):
    flops = sum(product.times * product.flops for product in gradient.products())
    # Forward, and the activations' gradient backward.
    assert flops == 2 * LAYERS * 2 * BATCH * WIDTH * WIDTH
    for product in gradient.products():
        assert (product.inputs, product.output) == (BATCH * WIDTH + WIDTH**2, BATCH * WIDTH)


def test_what_a_loop_keeps_for_the_backward_pass(gradient):
    # The sine's derivatives, in float32, but not the weights, which go through the loops too.
    assert gradient.kept_bytes() == LAYERS * BATCH * WIDTH * 4


def test_without_a_loop_nothing_is_kept_by_one():
    x = jnp.zeros((BATCH, WIDTH))
    program = Program(jax.jit(lambda x: x @ x.T).lower(x).compile().as_text(), ONE)
    assert program.kept_bytes() == 0
    assert not list(program.collectives())


TWO_DEVICES = f"""
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

mesh = jax.make_mesh((2,), ("model",), axis_types=(AxisType.Auto,))
place = lambda shape, *spec: jax.ShapeDtypeStruct(
    shape, jnp.float32, sharding=NamedSharding(mesh, P(*spec)))
down = place(({LAYERS}, {WIDTH}, {WIDTH}), None, "model", None)
table = place(({WIDTH}, {WIDTH}), "model", None)
x = place(({BATCH}, {WIDTH}))

def run(down, table, x):
    whole = jax.lax.with_sharding_constraint(table, NamedSharding(mesh, P()))
    y, _ = jax.lax.scan(lambda x, w: (x @ w, None), x, down)
    return y, whole

print(jax.jit(run).lower(down, table, x).compile().as_text())
"""


def test_collectives_of_a_program_for_two_devices():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    text = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], env=environment, check=True, text=True,
        stdout=subprocess.PIPE, timeout=120, cwd=Path(__file__).parent,
    ).stdout  # fmt: skip
    found = {collective.kind: collective for collective in Program(text, TWO).collectives()}
    assert set(found) == {"all-reduce", "all-gather"}
    # Each layer's partial products are summed; what is gathered is gathered once.
    assert found["all-reduce"].times == LAYERS
    assert found["all-reduce"].bytes == found["all-reduce"].sent == BATCH * WIDTH * 4
    assert found["all-gather"].times == 1
    assert found["all-gather"].bytes == 2 * found["all-gather"].sent == WIDTH * WIDTH * 4
    assert (found["all-reduce"].axes, found["all-reduce"].devices) == (("model",), 2)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups={}, to_apply=%add", [[0, 1, 2, 3]]),
        ("replica_groups=[2,2]<=[4], to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), to_apply=%add", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, to_apply=%add", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'a'}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}, to_apply=%add", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
    ],
)
def test_groups_of_devices_in_each_notation(written, expected):
    np.testing.assert_array_equal(_groups(f", {written}", 4), expected)


def test_what_a_device_sends_in_a_ring():
    def sent(kind: str, size: int) -> float:
        return Collective(kind=kind, times=1, shapes=(), bytes=size, axes=("a",), devices=4).sent

    # Of 4 devices: three quarters of an array to gather it or to share it out, both to sum it.
    assert sent("all-gather", 400) == 300
    assert sent("reduce-scatter", 100) == 300
    assert sent("all-reduce", 400) == 600
    assert sent("collective-permute", 100) == 100


def test_bytes_of_each_width():
    assert [Shape(dtype, (3,)).bytes for dtype in ("pred", "s8", "bf16", "f32", "s64")] == [
        3, 3, 6, 12, 24,
    ]  # fmt: skip
