"""Quantized kernels over a mesh: how they lie, and that devices compute what one does."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.sharding import AxisType, PartitionSpec

from prompt_tuning.checkpoints.frozen.weights import flatten
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import parameter_axes
from prompt_tuning.parallel.rules import Layout


def layout(data: int, model: int, fsdp: bool = False) -> Layout:
    mesh = jax.sharding.AbstractMesh(
        (data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2
    )
    return Layout(mesh=mesh, axes_of=parameter_axes, fsdp=fsdp)


def test_codes_and_scales_are_split_as_the_kernel_is():
    params = abstract_params(get_config("t5_1_1_xxl"), Compute(quantization="nf4"))
    flat = flatten(layout(2, 4, fsdp=True).abstract(params))
    stack = "decoder/layers/"
    for module, spec in {
        "self_attention/query": (None, "data", "model", None),
        "encoder_decoder_attention/out": (None, "model", None, "data"),
        "mlp/wi_1": (None, "data", "model"),
        "mlp/wo": (None, "model", "data"),
    }.items():
        for part in ("codes", "scales"):
            found = flat[f"{stack}{module}/kernel_{part}"].sharding.spec
            assert found == PartitionSpec(*spec), (module, part)


def test_blocks_that_cannot_be_split_are_told():
    params = abstract_params(get_config("t5_1_1_small"), Compute(quantization="int8"))
    assert layout(8, 1, fsdp=True).unsplit(params) == []
    (line,) = layout(16, 1, fsdp=True).unsplit(params)
    assert "blocks (8) can't be split 16 ways" in line


PROGRAM = """
import jax, numpy as np
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.config import parameter_axes
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.t5 import T5
from prompt_tuning.parallel.mesh import make_mesh, replicate, shard_batch
from prompt_tuning.parallel.rules import Layout

config = T5Config(
    name="four_heads", vocab_size=64, embed_dim=16, num_heads=4, head_dim=4, mlp_dim=32,
    num_encoder_layers=2, num_decoder_layers=2,
)
compute = Compute(quantization="nf4", quantization_block=8)
params = init_params(config, jax.random.key(0), compute)
numbers = np.random.default_rng(0)
batch = {
    "encoder_input_tokens": numbers.integers(2, 64, (4, 6), np.int32),
    "decoder_input_tokens": numbers.integers(2, 64, (4, 3), np.int32),
}
prompt = jax.random.normal(jax.random.key(1), (1, 3, 16))

def computed(model, params, batch, prompt):
    def loss(prompt):
        logits = model.apply({"params": params}, batch, Injection(encoder_prompt=prompt))
        return jax.nn.logsumexp(logits).sum()
    return jax.jit(jax.grad(loss))(prompt)

expected = computed(T5(config), params, batch, prompt)
layout = Layout(mesh=make_mesh(data=2, model=2), axes_of=parameter_axes, fsdp=True)
sharded = jax.tree.map(jax.device_put, params, layout.shardings(params))
codes = sharded["encoder"]["layers"]["mlp"]["wi_0"]["kernel_codes"]
assert codes.addressable_shards[0].data.shape == (2, 4, 16), codes.sharding
found = computed(
    T5(config, compute, layout),
    sharded,
    shard_batch(batch, layout.mesh),
    replicate(prompt, layout.mesh),
)
np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
assert np.abs(expected).max() > 1e-3
"""


@pytest.mark.slow
def test_four_devices_compute_what_one_does():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4"
            " --xla_backend_optimization_level=0",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
