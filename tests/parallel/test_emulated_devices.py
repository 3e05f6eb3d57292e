"""Eight devices give what one gives, for every method and shape of mesh.

One process a method (`emulated_devices.py`) computes everything: JAX has to be told of the devices
before it starts.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("emulated_devices.py")
ROOT = Path(__file__).parents[2]
# data, model, FSDP; along a single row of `data` there is nothing for FSDP to split.
MESHES = ["1,8,0", "2,4,0", "4,2,0", "8,1,0", "2,4,1", "4,2,1", "8,1,1"]


def _script():
    spec = importlib.util.spec_from_file_location("emulated_devices", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


emulated = _script()


@pytest.fixture(scope="module", params=emulated.METHODS)
def found(request):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), request.param, *MESHES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_gives_what_one_device_gives(found, mesh):
    one, many = found["one"], found[mesh]
    assert np.abs(one["gradient"]).max() > 1e-3
    for name in ("loss", "gradient", "trained"):
        np.testing.assert_allclose(many[name], one[name], rtol=1e-5, atol=1e-5)
    assert many["greedy"] == one["greedy"]


def test_beam_search_and_rank_classification_on_split_weights(found):
    one, many = found["one"], found["2,4,1"]
    assert many["beam"] == one["beam"]
    np.testing.assert_allclose(many["rank"], one["rank"], rtol=1e-5, atol=1e-5)


def of_weights(found, mesh):
    """The collectives of a step that move something as large as a layer's smallest kernel."""
    config = emulated.CONFIG
    least = 4 * config.embed_dim * config.num_heads * config.head_dim
    return [one for one in found[mesh]["collectives"] if one["bytes"] >= least // 8]


@pytest.mark.parametrize("mesh", ["1,8,0", "2,4,0", "4,2,0", "8,1,0"])
def test_without_fsdp_no_weights_move(found, mesh):
    kinds = {one["kind"] for one in found[mesh]["collectives"]}
    assert "all-reduce" in kinds
    assert "all-gather" not in kinds and "all-to-all" not in kinds


@pytest.mark.parametrize("mesh", ["2,4,0", "4,2,0", "8,1,0"])
def test_only_the_gradient_and_scalars_cross_data(found, mesh):
    numbers = sum(
        one["bytes"] * one["times"] // 4
        for one in found[mesh]["collectives"]
        if "data" in one["axes"]
    )
    trained = len(found["one"]["trained"])
    assert trained <= numbers <= trained + 8


@pytest.mark.parametrize("mesh", ["2,4,1", "4,2,1", "8,1,1"])
def test_fsdp_gathers_a_layer_at_a_time(found, mesh):
    gathers = [one for one in found[mesh]["collectives"] if one["kind"] == "all-gather"]
    layers = emulated.CONFIG.num_encoder_layers
    assert any(one["times"] == layers for one in gathers)
    config = emulated.CONFIG
    whole_layer_kernel = 4 * config.embed_dim * config.mlp_dim
    for one in gathers:
        if one["times"] == 1:
            continue
        assert one["bytes"] <= whole_layer_kernel, one
