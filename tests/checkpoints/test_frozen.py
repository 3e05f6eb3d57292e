"""Recognizing what a path holds."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from small_configs import SMALL

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt, save_prompt
from prompt_tuning.checkpoints.frozen import locations
from prompt_tuning.checkpoints.frozen.huggingface import huggingface_shapes
from prompt_tuning.checkpoints.frozen.huggingface_config import config_from_huggingface
from prompt_tuning.checkpoints.frozen.load import load_frozen
from prompt_tuning.checkpoints.frozen.weights import save_weights
from prompt_tuning.errors import UserError
from prompt_tuning.models.initialization import init_params

CONFIG = dataclasses.replace(SMALL, name="tiny_test")


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
    with pytest.raises(UserError, match="the model type 'bart'"):
        load_frozen(tmp_path)


def test_prompts_of_a_hub_model_fit_its_other_snapshots(tmp_path, monkeypatch):
    """The name that prompts remember is the model's own, not that of the snapshot's folder."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    fields = {"model_type": "t5", "vocab_size": 8, "d_model": 4, "num_heads": 2, "d_kv": 2}
    fields |= {"d_ff": 4, "num_layers": 1, "relative_attention_num_buckets": 4}
    config = config_from_huggingface(fields, name="x")
    shapes = huggingface_shapes(config)
    revisions = {None: "1111111111", "v2": "2222222222"}
    for hash_ in revisions.values():
        folder = tmp_path / "models--google--t5-tiny" / "snapshots" / hash_
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(fields))
        arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
        save_file(arrays, folder / "model.safetensors")

    def snapshot_download(repository, *, revision, allow_patterns):
        return str(tmp_path / "models--google--t5-tiny" / "snapshots" / revisions[revision])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    (first, _), (second, _) = load_frozen("google/t5-tiny"), load_frozen("google/t5-tiny@v2")
    assert first.name == second.name == "t5-tiny"
    _, prompt = save_prompt(tmp_path / "p", np.ones((2, 4)), PromptMetadata(model=first.name))
    load_prompt(prompt, (2, 4), model=second.name)
    given = load_frozen(tmp_path / "models--google--t5-tiny" / "snapshots" / "1111111111")
    assert given[0].name == "t5-tiny"


def test_what_is_no_checkpoint_is_told(tmp_path):
    with pytest.raises(
        UserError, match=r"expected a Hugging Face folder .* The folder contains nothing"
    ):
        load_frozen(tmp_path)
    for number in range(12):
        (tmp_path / f"{number:02}.txt").touch()
    with pytest.raises(UserError, match="contains 00.txt, .*, 09.txt, and 2 more"):
        load_frozen(tmp_path)
    with pytest.raises(UserError, match="neither a file nor a folder"):
        load_frozen(tmp_path / "absent")
