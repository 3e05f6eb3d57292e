"""A decoder-only model over four emulated devices computes what it does on one.

In a process of its own: JAX has to be told of the devices before it starts.
"""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json
import jax, jax.numpy as jnp, numpy as np
from small_configs import TINY_FAMILIES
from prompt_tuning.checkpoints.frozen.weights import flatten, unflatten
from prompt_tuning.evaluation.rank import label_log_likelihoods
from prompt_tuning.models.families import model_of
from prompt_tuning.models.initialization import init_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.parameters import parameter_axes
from prompt_tuning.parallel.mesh import make_mesh, shard_batch
from prompt_tuning.parallel.rules import Layout

config = TINY_FAMILIES["qwen2"]
layout = Layout(mesh=make_mesh(model=2, data=2), axes_of=parameter_axes)
params = init_params(config, jax.random.key(0))
sharded = unflatten({
    name: jax.device_put(leaf, layout.sharding_of(name, leaf.shape))
    for name, leaf in flatten(params).items()
})
kernel = sharded["decoder"]["layers"]["self_attention"]["key"]["kernel"]
assert kernel.sharding.shard_shape(kernel.shape)[2] == 1
tokens = np.random.default_rng(0).integers(2, 32, (4, 9), np.int32)
tokens[1, 5:] = 0
labels = jnp.array([[5, 1, 0], [6, 7, 1]], jnp.int32)

def scored(model, params, tokens):
    def score(prompt):
        injection = Injection(encoder_prompt=prompt)
        return label_log_likelihoods(model, params, tokens, injection, labels).sum()
    value, gradient = jax.jit(jax.value_and_grad(score))(jnp.full((1, 3, 12), 0.3))
    return [float(value), *np.asarray(gradient).ravel().tolist()]

one = scored(model_of(config), params, jnp.asarray(tokens))
many = scored(model_of(config, layout=layout), sharded, shard_batch(tokens, layout.mesh))
print(json.dumps([one, many]))
"""


@pytest.mark.slow
def test_four_devices_compute_what_one_does(checkout):
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(checkout / "tests")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, many = json.loads(done.stdout.splitlines()[-1])
    assert max(map(abs, one[1:])) > 0.01
    assert many == pytest.approx(one, rel=1e-4, abs=1e-4)
