"""Prompts of the paper's code: T5X variables, NumPy files, and the ones it released."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorstore
from flax import serialization

from prompt_tuning.checkpoints.adapters.prompt_export import export_prompt
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt
from prompt_tuning.errors import UserError
from prompt_tuning.models.config import get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.t5 import T5

RELEASED = ("mrpc", "rte", "sst2")
DOTTED = "encoder.prompt.prompt.prompt"


@pytest.fixture
def prompt():
    return np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)


@pytest.fixture
def trained(real_data, tmp_path, prompt):
    """A real T5X checkpoint with a prompt added to it, stored as T5X stores it."""
    folder = tmp_path / "checkpoint_3"
    shutil.copytree(real_data / "t5x_checkpoints/random_t5_1_1_tiny_zarr/checkpoint_3", folder)
    for part in (folder, *folder.iterdir()):
        part.chmod(0o755)
    add_variable(folder, prompt)
    return folder


def add_variable(folder: Path, array: np.ndarray, name: str = DOTTED) -> None:
    """Writes an array as T5X does: zarr in a folder of its own, and its place into the index."""
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(folder / f"target.{name}")},
        "metadata": {"compressor": {"id": "gzip", "level": 1}},
    }
    stored = tensorstore.open(spec, create=True, dtype=array.dtype.name, shape=array.shape).result()
    stored.write(array).result()
    index = serialization.msgpack_restore((folder / "checkpoint").read_bytes())
    *path, last = name.split(".")
    node = index["optimizer"]["target"]
    for part in path:
        node = node.setdefault(part, {})
    kvstore = {"driver": "gfile", "path": f"target.{name}"}
    node[last] = {"driver": "zarr", "kvstore": kvstore, "metadata": {}}
    (folder / "checkpoint").chmod(0o644)
    (folder / "checkpoint").write_bytes(serialization.msgpack_serialize(index))


def refused(message, path):
    with pytest.raises(UserError, match=message) as caught:
        load_prompt(path)
    assert "\n" not in str(caught.value)


def test_a_prompt_is_read_out_of_a_whole_checkpoint(trained, prompt):
    for path in (trained, trained / "checkpoint"):
        array, metadata = load_prompt(path, (6, 4))
        np.testing.assert_array_equal(array, prompt)
        assert metadata == PromptMetadata()


def test_nothing_but_the_prompt_is_read(trained, prompt):
    """A checkpoint of XXL is 44 GB."""
    for chunk in trained.glob("target.decoder.*/0.*"):
        chunk.unlink()
    np.testing.assert_array_equal(load_prompt(trained)[0], prompt)


def test_a_prompt_of_half_precision_is_read(trained, prompt):
    shutil.rmtree(trained / f"target.{DOTTED}")
    half = prompt.astype(jax.numpy.bfloat16)
    add_variable(trained, half)
    np.testing.assert_array_equal(load_prompt(trained)[0], half.astype(np.float32))


def test_a_checkpoint_in_one_file_is_read(tmp_path, prompt):
    target = {"encoder": {"prompt": {"prompt": {"prompt": prompt}}}}
    path = tmp_path / "prompt.checkpoint_0"
    content = {"version": 3, "optimizer": {"target": target, "state": {"step": 7}}}
    path.write_bytes(serialization.msgpack_serialize(content))
    np.testing.assert_array_equal(load_prompt(path)[0], prompt)


def test_a_step_of_the_numpy_checkpoints_is_read(tmp_path, prompt):
    with open(tmp_path / DOTTED, "wb") as file:
        np.save(file, prompt)
    for path in (tmp_path, tmp_path / DOTTED):
        np.testing.assert_array_equal(load_prompt(path)[0], prompt)


def test_the_export_is_what_t5x_and_the_papers_code_read(tmp_path, prompt):
    written = export_prompt(tmp_path / "model_dir", prompt, PromptMetadata(step=40), form="t5x")
    checkpoint = tmp_path / "model_dir/checkpoint_40/checkpoint"
    alone = tmp_path / "model_dir/numpy_checkpoints/checkpoint_40" / DOTTED
    assert written == [checkpoint, alone]
    # T5X restores its index by this function of Flax, and takes arrays in it as they are.
    index = serialization.msgpack_restore(checkpoint.read_bytes())
    assert index["version"] == 3
    assert index["optimizer"]["state"]["step"] == 40
    assert jax.tree.structure(index["optimizer"]["target"]) == jax.tree.structure(
        {"encoder": {"prompt": {"prompt": {"prompt": 0}}}}
    )
    np.testing.assert_array_equal(*jax.tree.leaves(index["optimizer"]["target"]), prompt)
    np.testing.assert_array_equal(np.load(alone, allow_pickle=False), prompt)
    for path in (checkpoint, checkpoint.parent, alone, alone.parent):
        np.testing.assert_array_equal(load_prompt(path)[0], prompt)


def test_a_checkpoint_without_a_prompt_is_refused(real_data, trained, prompt):
    tiny = real_data / "t5x_checkpoints"
    for path in (tiny / "random_t5_1_1_tiny_zarr/checkpoint_3", tiny / "test_t5_tiny.checkpoint_0"):
        refused("no variable target/encoder/prompt/prompt/prompt: its model has no prompt", path)
    index = serialization.msgpack_restore((trained / "checkpoint").read_bytes())
    del index["optimizer"]["target"]["encoder"]["prompt"]
    (trained / "checkpoint").write_bytes(serialization.msgpack_serialize(index))
    add_variable(trained, prompt, "decoder.prompt.prompt.prompt")
    refused("only decoder/prompt/prompt/prompt", trained)


def test_half_a_checkpoint_is_refused(trained):
    path = trained / "checkpoint"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused("T5X checkpoint", trained)
    refused("T5X checkpoint", path)


def test_a_damaged_prompt_is_refused(trained):
    (chunk,) = (trained / f"target.{DOTTED}").glob("[0-9]*")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    refused("encoder/prompt/prompt/prompt", trained)


def test_the_folder_of_an_export_is_taken(tmp_path, prompt):
    export_prompt(tmp_path / "model_dir", prompt, PromptMetadata(), form="t5x")
    found, _ = load_prompt(tmp_path / "model_dir", prompt.shape)
    np.testing.assert_array_equal(found, prompt)


def test_the_released_prompts_drive_a_base_model(real_data):
    """One forward pass of T5 1.1 Base, of random weights, each row with another prompt."""
    folder = real_data / "released_prompts/t5_1_1_lm100k_base"
    prompts = np.stack([load_prompt(folder / f"{name}.npy", (100, 768))[0] for name in RELEASED])
    config = get_config("t5_1_1_base")
    values = 0.05 * np.random.default_rng(0).standard_normal(1_000_003, np.float32)
    frozen = jax.tree.map(lambda leaf: np.resize(values, leaf.shape), abstract_params(config))
    tokens = np.tile([37, 293, 19, 1], (3, 1))
    batch = {"encoder_input_tokens": tokens, "decoder_input_tokens": tokens[:, :1]}
    injection = Injection(encoder_prompt=jax.numpy.asarray(prompts))
    logits = jax.jit(T5(config).apply)({"params": frozen}, batch, injection)
    assert logits.shape == (3, 1, 32128)
    assert np.isfinite(logits).all()
    # The rows differ in their prompts alone.
    spread = np.std(logits, axis=(1, 2))
    assert all(np.abs(logits[a] - logits[b]).max() > spread.max() for a, b in [(0, 1), (1, 2)])
