"""Eight devices give what one gives, for every method and shape of mesh.

Other processes (`emulated_devices.py`) compute it: JAX has to be told of the devices before it
starts.
"""

import functools
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
QUICK = ("2,4,0", "4,2,1")
SLOW = ("1,8,0", "4,2,0", "8,1,0", "2,4,1", "8,1,1")
MESHES = [*QUICK, *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in SLOW)]


def _script():
    spec = importlib.util.spec_from_file_location("emulated_devices", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


emulated = _script()
# What is on a mesh is the model's affair; one method stands for the others where time is short.
METHODS = [
    pytest.param(name, marks=() if name == "soft_prompt" else pytest.mark.slow)
    for name in emulated.METHODS
]


# Its heads of keys are fewer than the devices of one mesh, which store them all.
OF_T5GEMMA = [
    pytest.param(f"t5gemma/{name}", marks=pytest.mark.slow)
    for name in ("soft_prompt", "deep_prompt", "lora")
]


@functools.cache
def computed(method, meshes):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # Compiled quickly: what is computed is the same.
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), method, *meshes],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def found(method, mesh):
    """What one device and a mesh compute; the slow meshes share a process, and the quick ones."""
    results = computed(method, QUICK if mesh in QUICK else SLOW)
    return results["one"], results[mesh]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("method", [*METHODS, *OF_T5GEMMA])
def test_a_mesh_gives_what_one_device_gives(method, mesh):
    one, many = found(method, mesh)
    assert np.abs(one["gradient"]).max() > 1e-3
    for name in ("loss", "gradient", "trained"):
        np.testing.assert_allclose(many[name], one[name], rtol=1e-5, atol=1e-5)
    assert many["greedy"] == one["greedy"]


@pytest.mark.parametrize("mesh", QUICK)
def test_each_device_keeps_its_part_of_a_norm_s_input(mesh):
    _, many = found("soft_prompt", mesh)
    assert many["kept"] == 8 * 3 * emulated.T5_CONFIG.embed_dim // 8


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, *OF_T5GEMMA])
def test_beam_search_and_rank_classification_on_split_weights(method):
    one, many = found(method, "2,4,1")
    assert many["beam"] == one["beam"]
    np.testing.assert_allclose(many["rank"], one["rank"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("method", METHODS)
def test_only_the_gradient_crosses_data_and_no_weights_move(method, mesh):
    """Under FSDP weights do, and only they: a layer's at a time, each time round its loop.

    Over `model`, where each device stores a part of a norm's input, its gradients are gathered.
    """
    if method == "model_tuning":
        pytest.skip("its gradient is as large as the weights and lies as they do")
    one, many = found(method, mesh)
    fsdp = mesh.endswith(",1")
    config = emulated.T5_CONFIG
    trained = len(one["trained"])
    reduced = 0
    data, model = map(int, mesh.split(",")[:2])
    lengths = (7, 7 + emulated.SIZES["length"])  # of the encoder
    of_norms = {4 * 8 // data * length * config.embed_dim for length in lengths}
    collectives = [
        collective
        for collective in many["collectives"]
        if "data" in collective["axes"] or collective["bytes"] not in of_norms
    ]
    for collective in collectives:
        if "data" not in collective["axes"]:
            # Only of what is trained, whose heads XLA may share out over `model`.
            small = collective["bytes"] * collective["times"] <= 4 * trained
            assert collective["kind"] != "all-gather" or fsdp or small, collective
        elif collective["kind"] == "all-reduce":
            # What is trained in each layer is summed as its gradient comes about.
            assert collective["times"] in (1, config.num_encoder_layers), collective
            reduced += collective["bytes"] // 4 * collective["times"]
        else:
            assert fsdp, collective
    if mesh != "1,8,0":
        # Where something stands between what is trained and what is injected, XLA sums whichever
        # is smaller: the prompt that a network makes, or sums of which gradients are made. In a
        # layer's heads each device may sum its own alone.
        made = method in emulated.MADE_BY_A_NETWORK
        least = trained if method.startswith("soft_prompt") else 1 if made else trained // model
        assert least <= reduced <= (2 * trained if made else trained + 8)
    in_loops = [
        collective
        for collective in collectives
        if collective["kind"] == "all-gather" and collective["times"] > 1
        if "data" in collective["axes"]  # those over `model` are small, as tested above
    ]
    assert bool(in_loops) == fsdp
    kernels = {
        4 * config.embed_dim * config.mlp_dim // model,
        4 * config.embed_dim * config.num_heads * config.head_dim // model,
    }
    assert {collective["bytes"] for collective in in_loops} == (kernels if fsdp else set())
    assert {collective["times"] for collective in in_loops} <= {config.num_encoder_layers}
