"""Models that are quantized as they are loaded, one parameter after another."""

import json
import tracemalloc

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import CONFIG_KEY, flatten, save_weights
from prompt_tuning.errors import UserError
from prompt_tuning.models.compute import Compute
from prompt_tuning.models.parameters import count_parameters
from prompt_tuning.models.quantization import quantize_params

MODEL = "tinyworld_base"


@pytest.fixture(scope="module")
def loaded():
    """The config and the weights in NF4, and the most that was in NumPy's memory meanwhile."""
    load_frozen(MODEL, dtype="float32", quantization="nf4")  # whatever is loaded and compiled once
    tracemalloc.start()
    found = load_frozen(MODEL, dtype="float32", quantization="nf4")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return *found, peak


def test_it_is_the_loaded_model_quantised(loaded):
    config, frozen, _ = loaded
    plain, whole = load_frozen(MODEL, dtype="float32")
    assert plain == config
    expected = quantize_params(whole, Compute(quantization="nf4"))
    jax.tree.map(np.testing.assert_array_equal, frozen, expected)
    assert count_parameters(frozen) == count_parameters(whole)


def test_the_float_model_is_never_in_memory_whole(loaded):
    _, frozen, peak = loaded
    floats = 4 * count_parameters(frozen)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(frozen))
    assert held < 0.4 * floats  # its embeddings and output layer are a fifth of it
    assert peak < 0.6 * floats


def test_what_is_quantised_is_not_saved(loaded, tmp_path):
    config, frozen, _ = loaded
    with pytest.raises(
        UserError, match="are quantized, which no file format here supports"
    ) as error:
        save_weights(tmp_path / "x.safetensors", frozen, config)
    assert "\n" not in str(error.value)


def test_what_older_files_say_of_computation_is_ignored(tmp_path):
    config, frozen = load_frozen("tinyworld_tiny")
    path = tmp_path / "said.safetensors"
    said = {**config.to_json(), "quantization": "int8", "quantization_block": 48, "unroll": 0}
    arrays = {name: np.asarray(value) for name, value in flatten(frozen).items()}
    save_file(arrays, path, {CONFIG_KEY: json.dumps(said)})
    assert load_frozen(path)[0] == config


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"quantization": "nf"}, "Did you mean 'nf4'?"),
        ({"quantization": "int8", "quantization_block": 48}, "embed_dim, 128: set it to 32"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(options, told):
    with pytest.raises(UserError) as error:
        load_frozen(MODEL, **options)
    assert told in str(error.value) and "\n" not in str(error.value)
