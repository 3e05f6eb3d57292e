"""Recognising what a path holds."""

import json

import jax
import numpy as np
import pytest

from prompt_tuning.checkpoints import locations
from prompt_tuning.checkpoints.frozen import load_frozen
from prompt_tuning.checkpoints.weights import save_weights
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import init_params

CONFIG = T5Config(
    name="tiny_test",
    vocab_size=50,
    embed_dim=16,
    num_heads=2,
    head_dim=6,
    mlp_dim=24,
    num_encoder_layers=3,
    num_decoder_layers=2,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tiny_test.safetensors"
    save_weights(path, init_params(CONFIG, jax.random.key(0)), CONFIG)
    return path


def test_our_own_file(file):
    config, frozen = load_frozen(file, dtype="bfloat16")
    assert config.name == "tiny_test"
    assert frozen["token_embedder"]["embedding"].dtype == "bfloat16"


def test_a_shipped_name(file, monkeypatch):
    monkeypatch.setattr(locations, "shipped_models", lambda: {"tiny_test": file})
    assert load_frozen("tiny_test")[0] == CONFIG
    with pytest.raises(UserError, match="Did you mean 'tiny_test'"):
        load_frozen("tiny_tset")


def test_t5x_folder_and_file(real_data):
    folder = real_data / "t5x_checkpoints"
    config, frozen = load_frozen(str(folder / "random_t5_1_1_tiny_zarr" / "checkpoint_3"))
    assert config.embed_dim == 4
    assert np.isfinite(frozen["decoder"]["logits_dense"]["kernel"]).all()
    assert load_frozen(folder / "test_t5_tiny.checkpoint_0")[0].embed_dim == 8


def test_a_hugging_face_folder_is_read_as_one(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bart"}))
    with pytest.raises(UserError, match="of type 'bart'"):
        load_frozen(tmp_path)


def test_what_is_no_checkpoint_is_told(tmp_path):
    with pytest.raises(UserError, match="none of config.json, checkpoint and _METADATA"):
        load_frozen(tmp_path)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        load_frozen(tmp_path / "absent")
