"""What is read out of compiled programs, against what was written into them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.planning.compilers import Analysis
from prompt_tuning.planning.hlo import Collective, Kernel, Program, Shape, _groups
from prompt_tuning.planning.machines import find_machine

LAYERS, BATCH, WIDTH = 3, 4, 8


TWO = jax.sharding.AbstractMesh((2,), ("model",))


def stack(weights, x):
    """Layers as a loop."""
    y, _ = jax.lax.scan(lambda x, w: (jnp.sin(x @ w), None), x, weights)
    return y.sum()


@pytest.fixture(scope="module")
def gradient() -> list[Kernel]:
    """The gradient of a stack of layers by its input, on one device."""
    weights, x = jnp.zeros((LAYERS, WIDTH, WIDTH)), jnp.zeros((BATCH, WIDTH))
    text = jax.jit(jax.grad(stack, 1)).lower(weights, x).compile().as_text()
    return list(Program(text).kernels())


def test_products_are_counted_as_often_as_the_loop_runs(gradient):
    # Forward, and the activations' gradient backward.
    flops = 2 * LAYERS * 2 * BATCH * WIDTH * WIDTH
    assert sum(kernel.times * kernel.flops for kernel in gradient) == flops
    products = [kernel for kernel in gradient if kernel.flops]
    assert {kernel.phase for kernel in products} == {"forward", "backward"}
    assert all(kernel.float32 and not kernel.cycles for kernel in products)


def test_a_loop_that_can_end_early_counts_as_often_as_it_can_run():
    def decode(x):
        def more(carry):
            return (carry[0] < 7) & jnp.any(carry[1] < 0)

        return jax.lax.while_loop(more, lambda c: (c[0] + 1, jnp.sin(c[1] @ x)), (0, x))

    text = jax.jit(decode).lower(jnp.zeros((WIDTH, WIDTH))).compile().as_text()
    flops = sum(kernel.times * kernel.flops for kernel in Program(text).kernels())
    assert flops == 7 * 2 * WIDTH**3


TPU = """HloModule jit_step, is_scheduled=true

%fused (p: bf16[24,16,64], i: s32[]) -> bf16[16,64] {
  %p = bf16[24,16,64]{2,1,0:T(8,128)(2,1)} parameter(0)
  %i = s32[]{:T(128)} parameter(1)
  %b = bf16[24,16,64]{2,1,0:T(8,128)(2,1)} bitcast(%p)
  %s = bf16[1,16,64]{2,1,0:T(8,128)(2,1)} dynamic-slice(%b, %i), dynamic_slice_sizes={1,16,64}
  ROOT %r = bf16[16,64]{1,0:T(8,128)(2,1)} bitcast(%s)
}

%updated (q: bf16[24,16,64], u: bf16[1,16,64]) -> bf16[24,16,64] {
  %q = bf16[24,16,64]{2,1,0} parameter(0)
  %u = bf16[1,16,64]{2,1,0} parameter(1)
  ROOT %d = bf16[24,16,64]{2,1,0} dynamic-update-slice(%q, %u)
}

%body (t: (s32[], bf16[24,16,64])) -> (s32[], bf16[24,16,64]) {
  %t = (s32[], bf16[24,16,64]) parameter(0)
  %i.1 = s32[] get-tuple-element(%t), index=0
  %w = bf16[24,16,64] get-tuple-element(%t), index=1
  %f.1 = bf16[16,64]{1,0:T(8,128)(2,1)S(1)} fusion(%w, %i.1), kind=kLoop, calls=%fused, \
metadata={op_name="jit(step)/transpose(jvp(T5))/T5.encode/encoder/while/body/closed_call/layers/\
checkpoint/rematted_computation/attention/bhts,bhsk->bhtk/dot_general" stack_frame_id=2}, \
backend_config={"window_config":{"estimated_cycles":"1000","iteration_bounds":["1"]}}
  %f.2 = bf16[24,16,64]{2,1,0} fusion(%w, %f.1), kind=kLoop, calls=%updated, metadata={\
op_name="jit(step)/transpose(jvp(T5))/T5.encode/encoder/while/body/closed_call/layers/mlp/wi/dot"\
}, backend_config={"window_config":{"estimated_cycles":"500"}}
  ROOT %n = (s32[], bf16[24,16,64]) tuple(%i.1, %f.2)
}

%condition (c: (s32[], bf16[24,16,64])) -> pred[] {
  %c = (s32[], bf16[24,16,64]) parameter(0)
  %i.2 = s32[] get-tuple-element(%c), index=0
  %limit = s32[]{:T(128)} constant(24)
  ROOT %less = pred[]{:T(512)} compare(%i.2, %limit), direction=LT
}

ENTRY %main (x: bf16[24,16,64], y: bf16[16,64]) -> bf16[16,64] {
  %x = bf16[24,16,64]{2,1,0} parameter(0)
  %y = bf16[16,64]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], bf16[24,16,64]) tuple(%zero, %x)
  %while.1 = (s32[], bf16[24,16,64]) while(%start), condition=%condition, body=%body
  %k = bf16[16,64]{1,0} custom-call(%y, %y), custom_call_target="tpu_custom_call", metadata={\
op_name="jit(step)/jvp(T5)/T5.encode/encoder/attention/jit(flash_attention)/pallas_call"}, \
backend_config={"custom_call_config":{"cost_estimate":{"flops":"7000000","bytes_accessed":"9"}}}
  ROOT %copy = bf16[16,64]{1,0} copy(%k)
}
"""


def test_a_program_of_a_tpu():
    *looped, kernel, copied = list(Program(TPU).kernels())
    layer = 2 * 16 * 64  # bytes
    attention, mlp = [each for each in looped if each.cycles]
    assert attention == (
        "encoder/attention/bhts,bhsk->bhtk", "recomputed", 24, 1000, 0, False, 2 * layer + 4, False,
    )  # fmt: skip
    # In place: one slice is read and one written.
    assert (mlp.name, mlp.phase, mlp.moved) == ("encoder/mlp/wi", "backward", 2 * layer)
    assert kernel == (
        "encoder/attention/flash_attention", "forward", 1, 0, 7_000_000, False, 2 * layer, True,
    )  # fmt: skip
    assert (copied.name, copied.moved) == ("(the compiler's own)", 2 * layer)


def test_pallas_kernels_of_a_tpu_count_at_the_rate_of_their_schedule():
    v5e = find_machine("v5e").accelerator
    one = Analysis(
        arguments=0, outputs=0, temporaries=0, cycles=36_000, flops=0, moved=0, program=Program(TPU)
    )
    moving = 2 * 16 * 64 * 2 / v5e.memory_bandwidth
    pallas = 7_000_000 / (0.385 * v5e.flops)
    assert pallas > moving
    assert one.seconds(v5e, pallas_only=True) == pytest.approx(pallas)
    at_peak = one.seconds(v5e, pallas_only=True, at_peak=True)
    assert at_peak == pytest.approx(max(7_000_000 / v5e.flops, moving))
    assert one.seconds(v5e) == pytest.approx(24 * 1500 / v5e.clock + pallas)
    assert one.parts(v5e)[0][:2] == ("encoder/attention/bhts,bhsk->bhtk", "recomputed")


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
    found = {collective.kind: collective for collective in Program(text).collectives(TWO)}
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
        return Collective(kind=kind, times=1, bytes=size, axes=("a",), devices=4).sent

    # Of 4 devices: three quarters of an array to gather it or to share it out, both to sum it.
    assert sent("all-gather", 400) == 300
    assert sent("reduce-scatter", 100) == 300
    assert sent("all-reduce", 400) == 600
    assert sent("collective-permute", 100) == 100


def test_bytes_of_each_width():
    assert [Shape(dtype, (3,)).bytes for dtype in ("pred", "s8", "bf16", "f32", "s64")] == [
        3, 3, 6, 12, 24,
    ]  # fmt: skip
