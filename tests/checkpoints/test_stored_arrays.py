"""Reading parameter by parameter: memory, placement on devices, and the sizes of real models."""

import subprocess
import sys
import tracemalloc

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints.arrays.stored_arrays import array_in_memory, check_parameters
from prompt_tuning.checkpoints.frozen.huggingface import parameters_from_state
from prompt_tuning.checkpoints.frozen.huggingface_config import config_from_huggingface
from prompt_tuning.checkpoints.frozen.layouts import (
    canonical,
    check_size,
    expected_shapes,
    infer_config,
    layer_shapes,
    parameters_from_layers,
)
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import save_weights
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import MODELS, T5Config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import parameter_shapes

CONFIG = T5Config(
    name="wide",
    vocab_size=3000,
    embed_dim=128,
    num_heads=4,
    head_dim=32,
    mlp_dim=512,
    num_encoder_layers=4,
    num_decoder_layers=4,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), abstract_params(CONFIG))
    path = tmp_path_factory.mktemp("wide") / "wide.safetensors"
    save_weights(path, params, CONFIG)
    return path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_is_never_in_memory_twice(file, monkeypatch, dtype):
    monkeypatch.setattr("prompt_tuning.checkpoints.arrays.stored_arrays.BLOCK_BYTES", 2**17)
    load_frozen(file)  # whatever is loaded once
    tracemalloc.start()
    _, frozen = load_frozen(file, dtype=dtype)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    loaded = sum(leaf.nbytes for leaf in jax.tree.leaves(frozen))
    # The parameters themselves may be in NumPy's memory, where JAX takes it over, or in JAX's.
    assert peak < 1.2 * loaded
    assert loaded > 4e6


def test_each_device_gets_its_shard_alone(file):
    program = f"""
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from prompt_tuning.checkpoints.frozen.load import load_frozen
mesh = jax.make_mesh((4,), ("model",), axis_types=(AxisType.Auto,))
def sharding_of(name, shape):
    split = (None, None, "model") if name.endswith("mlp/wi_0/kernel") else ()
    return NamedSharding(mesh, PartitionSpec(*split))
_, sharded = load_frozen({str(file)!r}, dtype="bfloat16", sharding_of=sharding_of)
_, whole = load_frozen({str(file)!r}, dtype="bfloat16")
kernel = sharded["encoder"]["layers"]["mlp"]["wi_0"]["kernel"]
assert [shard.data.shape for shard in kernel.addressable_shards] == [(4, 128, 128)] * 4
assert len(sharded["token_embedder"]["embedding"].addressable_shards) == 4
jax.tree.map(np.testing.assert_array_equal, sharded, whole)
"""
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        timeout=300,
        env={
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "PATH": "",
        },
    )


def zeros(shapes):
    """Arrays of these shapes that take no memory."""
    return {
        name: array_in_memory(np.broadcast_to(np.float32(0), shape))
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("name", ["t5_1_1_xl", "t5_3b", "mt5_xl", "t5_1_1_xxl"])
def test_large_layouts_by_shapes_alone(name):
    config = MODELS[name]
    arrays = canonical(zeros(layer_shapes(config)), source="it")
    assert infer_config(arrays, name="checkpoint_1100000", source="it") == config
    check_parameters(arrays, expected_shapes(config, arrays), source="it")
    parameters = parameters_from_layers(arrays, config)
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    assert shapes == parameter_shapes(config)
    layers = {name: len(parameter.parts) for name, parameter in parameters.items()}
    assert layers["decoder/layers/mlp/wo/kernel"] == 24
    assert layers["token_embedder/embedding"] == 1


# The fields in which the published config.json of each differ from transformers' defaults.
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
HUB = {
    "t5_1_1_xl": ("T5", {"d_model": 2048, "d_ff": 5120, "num_heads": 32, **V1_1}),
    "t5_3b": ("T5", {"d_model": 1024, "d_ff": 16384, "num_heads": 32, "d_kv": 128}),
    "mt5_xl": ("MT5", {"d_model": 2048, "d_ff": 5120, "num_heads": 32, "vocab_size": 250112}),
}


@pytest.mark.parametrize("name", HUB)
def test_large_models_of_transformers_by_shapes_alone(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    family, fields = HUB[name]
    sizes = {"vocab_size": 32128, "num_layers": 24, "num_decoder_layers": 24, **fields}
    with torch.device("meta"):
        config = getattr(transformers, f"{family}Config")(**sizes)
        model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state = zeros(shapes)
    if name == "t5_3b":  # its table and head are one, and need not be compared here
        del state["lm_head.weight"]
    ours = config_from_huggingface(config.to_dict() | {"model_type": family.lower()}, name=name)
    check_size(ours, MODELS[name], source="it")
    parameters = parameters_from_state(state, ours, source="it")
    assert {n: p.shape for n, p in parameters.items()} == parameter_shapes(MODELS[name])


def test_another_size_is_told_before_anything_is_read(file):
    with pytest.raises(UserError) as error:
        load_frozen(file, MODELS["t5_1_1_xl"])
    assert "doesn't match the model 't5_1_1_xl': its vocab_size is 3000, not 32128" in str(
        error.value
    )
    assert "its mlp_dim is 512, not 5120" in str(error.value)
