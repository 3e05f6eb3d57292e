"""Our own safetensors files."""

import dataclasses
import errno
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_configs import SMALL as CONFIG

from prompt_tuning.checkpoints.arrays.safetensors_files import stored_safetensors
from prompt_tuning.checkpoints.frozen.weights import (
    flatten,
    load_weights,
    save_weights,
    unflatten,
)
from prompt_tuning.errors import UserError
from prompt_tuning.models.initialization import init_params


@pytest.fixture(scope="module")
def frozen():
    return init_params(CONFIG, jax.random.key(0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_round_trip(tmp_path, frozen, dtype):
    weights = jax.tree.map(lambda x: x.astype(dtype), frozen)
    save_weights(tmp_path / "a.safetensors", weights, CONFIG, {"made": "today"})
    loaded_config, loaded, metadata = load_weights(tmp_path / "a.safetensors")
    assert loaded_config == CONFIG
    assert metadata == {"made": "today"}
    jax.tree.map(np.testing.assert_array_equal, loaded, weights)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype(dtype)}


ALIGNED = dataclasses.replace(
    CONFIG, vocab_size=64, embed_dim=32, num_heads=4, head_dim=8, mlp_dim=32
)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="accelerators have their own memory")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_used_as_they_lie_in_the_file(tmp_path, dtype):
    weights = jax.tree.map(lambda x: x.astype(dtype), init_params(ALIGNED, jax.random.key(0)))
    path = tmp_path / "a.safetensors"
    save_weights(path, weights, ALIGNED)
    _, loaded, _ = load_weights(path)
    mapped = [
        tuple(int(address, 16) for address in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]

    def is_mapped(leaf):
        address = leaf.unsafe_buffer_pointer()
        return any(start <= address and address + leaf.nbytes <= end for start, end in mapped)

    assert all(is_mapped(leaf) for leaf in jax.tree.leaves(loaded))
    # Who writes a file anew leaves the old one to those who have it.
    save_weights(path, jax.tree.map(jnp.zeros_like, weights), ALIGNED)
    jax.tree.map(np.testing.assert_array_equal, loaded, weights)


def test_giving_mapped_weights_away_leaves_the_file(tmp_path):
    weights = init_params(ALIGNED, jax.random.key(0))
    path = tmp_path / "a.safetensors"
    save_weights(path, weights, ALIGNED)
    before = path.read_bytes()
    _, loaded, _ = load_weights(path)
    jax.block_until_ready(
        jax.jit(lambda x: x + 1.0, donate_argnums=0)(flatten(loaded)["token_embedder/embedding"])
    )
    assert path.read_bytes() == before


def test_loading_in_another_dtype(tmp_path, frozen):
    save_weights(tmp_path / "a.safetensors", frozen, CONFIG)
    _, loaded, _ = load_weights(tmp_path / "a.safetensors", dtype="bfloat16")
    jax.tree.map(
        np.testing.assert_array_equal,
        loaded,
        jax.tree.map(lambda x: x.astype(jnp.bfloat16), frozen),
    )


def test_flatten_and_unflatten(frozen):
    flat = flatten(frozen)
    assert flat["encoder/layers/mlp/wo/kernel"].shape == (3, 24, 16)
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, unflatten(flat), frozen))


def test_what_does_not_fit_is_listed(tmp_path, frozen):
    path = tmp_path / "a.safetensors"
    save_weights(path, frozen, CONFIG)
    _, metadata = stored_safetensors(path)
    flat = load_file(path)
    del flat["encoder/encoder_norm/scale"]
    flat["encoder/prompt"] = np.zeros(3, np.float32)
    flat["token_embedder/embedding"] = np.zeros((51, 16), np.float32)
    save_file(flat, path, metadata)
    with pytest.raises(UserError) as error:
        load_weights(path)
    for part in (
        str(path),
        "encoder/encoder_norm/scale is missing",
        "encoder/prompt is unexpected",
        "token_embedder/embedding has shape (51, 16), expected (50, 16)",
    ):
        assert part in str(error.value)


def test_saving_another_models_weights_is_told(tmp_path, frozen):
    with pytest.raises(UserError, match="encoder/layers/mlp/wo/kernel has shape"):
        save_weights(tmp_path / "a", frozen, dataclasses.replace(CONFIG, mlp_dim=25))


def test_a_save_that_fails_leaves_the_old_file_whole(tmp_path, frozen, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_weights(path, frozen, CONFIG)
    before = path.read_bytes()

    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    changed = jax.tree.map(lambda x: x + 1, frozen)
    with pytest.raises(UserError, match="Can't write .*: No space left on device"):
        save_weights(path, changed, CONFIG)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_files_that_are_not_ours_are_told(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(UserError, match="Can't read .*: No such file or directory"):
        load_weights(path)
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not a header")
    with pytest.raises(UserError, match="Can't read weights"):
        load_weights(path)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(UserError, match="it wasn't saved by prompt_tuning"):
        load_weights(path)
    save_file({"a": np.zeros(2)}, path, {"t5_config": "{"})
    with pytest.raises(UserError, match="isn't JSON"):
        load_weights(path)
