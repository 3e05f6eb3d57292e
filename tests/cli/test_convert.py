"""`prompt-tuning convert`, from each format."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes.scripts import USER_ERROR, status_of


@pytest.fixture
def convert(tmp_path, capsys):
    """Converts to a new file; returns what loading it gives, and what was printed."""

    def run(source, *flags):
        output = tmp_path / f"new{len(list(tmp_path.glob('new*')))}.safetensors"
        assert status_of(main, ["convert", str(source), str(output), *flags]) == 0
        return *load_frozen(output), capsys.readouterr().out

    return run


@pytest.fixture
def fails(capsys):
    def run(*argv):
        assert status_of(main, ["convert", *map(str, argv)]) == USER_ERROR
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1
        return printed.err

    return run


def same(loaded, expected):
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)


@pytest.mark.parametrize(
    "name", ["random_t5_1_1_tiny_zarr/checkpoint_3", "test_t5_tiny.checkpoint_0"]
)
def test_from_t5x(real_data, convert, name):
    source = real_data / "t5x_checkpoints" / name
    config, frozen, printed = convert(source)
    expected_config, expected = load_frozen(source)
    assert config == expected_config
    same(frozen, expected)
    assert "parameters in float32, read from T5X" in printed


def test_from_our_own_to_bfloat16(tiny_weights_file, convert):
    config, frozen, printed = convert(tiny_weights_file, "--dtype", "bfloat16")
    expected_config, expected = load_frozen(tiny_weights_file, dtype="bfloat16")
    assert config == expected_config
    same(frozen, expected)
    assert "bfloat16" in printed


def test_from_hugging_face(tmp_path, convert):
    transformers = pytest.importorskip("transformers")
    fields = transformers.T5Config(
        vocab_size=40, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2
    )
    model = transformers.T5ForConditionalGeneration(fields)
    model.save_pretrained(tmp_path / "hf")
    config, frozen, printed = convert(tmp_path / "hf", "--dtype=float32")
    assert "read from Hugging Face" in printed
    kernel = model.encoder.block[1].layer[1].DenseReluDense.wo.weight.detach().numpy()
    np.testing.assert_array_equal(frozen["encoder"]["layers"]["mlp"]["wo"]["kernel"][1], kernel.T)
    assert config.tie_embeddings


def test_what_cannot_be_converted(tmp_path, fails, tiny_weights_file):
    output = tmp_path / "new.safetensors"
    assert "doesn't end in .safetensors" in fails(tiny_weights_file, tmp_path / "new.bin")
    assert "neither a file nor a folder" in fails(tmp_path / "none", output)
    line = fails(tiny_weights_file, output, "--architecture=t5_1_1_small")
    assert (
        "doesn't match the model 't5_1_1_small'" in line and "its embed_dim is 16, not 512" in line
    )
    assert "Can't write" in fails(tiny_weights_file, tmp_path / "no" / "new.safetensors")
    output.write_bytes(b"kept")
    assert "already exists" in fails(tiny_weights_file, output)
    assert output.read_bytes() == b"kept"


def test_a_checkpoint_whose_arrays_are_of_another_size(tmp_path, fails, tiny_weights_file):
    arrays = load_file(tiny_weights_file)
    arrays["encoder/encoder_norm/scale"] = arrays["encoder/encoder_norm/scale"][:-1]
    metadata = {"t5_config": json.dumps(load_frozen(tiny_weights_file)[0].to_json())}
    save_file(arrays, tmp_path / "cut.safetensors", metadata)
    line = fails(tmp_path / "cut.safetensors", tmp_path / "new.safetensors")
    assert "encoder/encoder_norm/scale has shape (15,), expected (16,)" in line
