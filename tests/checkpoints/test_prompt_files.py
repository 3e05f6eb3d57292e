"""Prompt files: every digit survives, and a file that doesn't fit is refused in one line."""

import os
import resource
import signal
import stat

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, load_prompt, save_prompt
from prompt_tuning.errors import UserError

METADATA = PromptMetadata(
    model="t5_1_1_small",
    task="superglue_rte",
    step=1200,
    metric="accuracy",
    score=0.1 + 0.2,
    seed=-3,
    vocabulary_hash="ab" * 32,
)


@pytest.fixture
def prompt():
    return np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)


@pytest.fixture
def saved(tmp_path, prompt):
    return save_prompt(tmp_path / "best", prompt, METADATA)


def refused(message, *args, **kwargs):
    with pytest.raises(UserError, match=message) as caught:
        load_prompt(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_both_files_hold_the_same_numbers(saved, prompt):
    for path in saved:
        array, _ = load_prompt(path, (5, 8))
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, prompt)


def test_metadata_comes_back_whole(saved):
    assert load_prompt(saved[1])[1] == METADATA
    assert load_prompt(saved[0])[1] == PromptMetadata()


def test_files_are_known_by_content_not_by_name(tmp_path, saved, prompt):
    nameless = tmp_path / "checkpoint_1200"
    for path in saved:
        nameless.write_bytes(path.read_bytes())
        np.testing.assert_array_equal(load_prompt(nameless)[0], prompt)


def test_a_stem_may_hold_dots_and_a_folder_gets_a_default_name(tmp_path, prompt):
    npy, tensors = save_prompt(tmp_path / "score_0.91", prompt, METADATA)
    assert (npy.name, tensors.name) == ("score_0.91.npy", "score_0.91.safetensors")
    npy, tensors = save_prompt(tmp_path, prompt, METADATA)
    assert (npy.name, tensors.name) == ("prompt.npy", "prompt.safetensors")


def test_saving_leaves_only_the_two_files_and_keeps_the_umask(tmp_path, saved):
    assert sorted(os.listdir(tmp_path)) == ["best.npy", "best.safetensors"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(saved[0].stat().st_mode) == 0o666 & ~umask


def test_other_float_types_become_float32(tmp_path, prompt):
    np.save(tmp_path / "half.npy", prompt.astype(np.float16))
    array, _ = load_prompt(tmp_path / "half.npy")
    np.testing.assert_array_equal(array, prompt.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(("name", "norm"), [("mrpc", 868), ("rte", 903), ("sst2", 1385)])
def test_the_papers_released_prompts_load(real_data, name, norm):
    path = real_data / "released_prompts/t5_1_1_lm100k_base" / f"{name}.npy"
    array, _ = load_prompt(path, (100, 768))
    assert np.linalg.norm(array, axis=1).mean() == pytest.approx(norm, abs=0.5)
    refused("768 wide, but the model's embeddings are 512 wide", path, (100, 512))


def test_a_prompt_of_another_length_is_refused(saved):
    refused("5 positions; expected 20", saved[0], (20, 8))


def test_a_prompt_of_another_width_is_refused(saved):
    refused("trained for another model", saved[0], (None, 16))


def test_a_prompt_for_another_model_is_refused_though_its_shape_fits(saved):
    load_prompt(saved[1], (5, 8), model="t5_1_1_small")
    refused("'t5_1_1_small', but the model in use is 't5_small'", saved[1], model="t5_small")


def test_a_prompt_for_another_vocabulary_is_refused(saved):
    load_prompt(saved[1], vocabulary_hash="ab" * 32)
    refused("another vocabulary", saved[1], vocabulary_hash="cd" * 32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, prompt, bad):
    prompt[3, 2] = bad
    np.save(tmp_path / "bad.npy", prompt)
    refused("NaN or infinite, the first at position 3, column 2", tmp_path / "bad.npy")


def test_a_value_too_large_for_float32_is_refused(tmp_path):
    np.save(tmp_path / "large.npy", np.full((2, 2), 1e300))
    refused("NaN or infinite", tmp_path / "large.npy")


class Trap:
    """An object whose unpickling would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickled_array_is_refused_and_nothing_in_it_runs(tmp_path):
    trap = tmp_path / "sprung"
    np.save(tmp_path / "trap.npy", np.array([Trap(str(trap))]), allow_pickle=True)
    refused("pickled Python objects", tmp_path / "trap.npy")
    assert not trap.exists()


def test_half_a_file_is_refused(tmp_path, saved):
    for path in saved:
        whole = path.read_bytes()
        for size in (3, 30, len(whole) - 1):
            half = tmp_path / "half"
            half.write_bytes(whole[:size])
            refused("is not a", half)


def test_a_file_of_something_else_is_refused(tmp_path, prompt):
    (tmp_path / "text").write_text("a prompt\nof words\n")
    refused("neither .npy nor .safetensors", tmp_path / "text")
    (tmp_path / "empty").write_bytes(b"")
    refused("neither .npy nor .safetensors", tmp_path / "empty")
    safetensors.numpy.save_file({"a": prompt, "b": prompt}, tmp_path / "weights")
    refused(r"contains 2 arrays \(a, b\)", tmp_path / "weights")
    np.save(tmp_path / "cube.npy", prompt[None])
    refused(r"shape \[1, 5, 8\]; expected \[length, embed\]", tmp_path / "cube.npy")
    np.save(tmp_path / "ids.npy", np.zeros((5, 8), np.int32))
    refused("has dtype int32; expected float32", tmp_path / "ids.npy")


def test_broken_metadata_is_refused(tmp_path, prompt):
    safetensors.numpy.save_file({"prompt": prompt}, tmp_path / "p", {"step": "many"})
    refused("metadata .* is invalid", tmp_path / "p")


def test_metadata_of_a_newer_version_is_let_through(tmp_path, prompt):
    safetensors.numpy.save_file({"prompt": prompt}, tmp_path / "p", {"task": "t", "mood": "good"})
    assert load_prompt(tmp_path / "p")[1] == PromptMetadata(task="t")


def test_a_path_that_is_no_file_is_refused(tmp_path, saved):
    refused("no prompt file", tmp_path / "missing.npy")
    refused("is a folder.*It contains best.npy, best.safetensors", tmp_path)


def test_a_folder_that_does_not_exist_is_told(tmp_path, prompt):
    with pytest.raises(UserError, match=r"Can't write .*best\.npy: .*\. Give the prompt a folder"):
        save_prompt(tmp_path / "missing" / "best", prompt, METADATA)


def test_a_full_disk_leaves_the_old_prompt_whole(tmp_path, saved, prompt):
    """A limit on file size stands in for the disk: a write fails midway with an OSError."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with pytest.raises(
            UserError, match=r"Can't write .*best\.npy: .*\. Give the prompt a folder"
        ):
            save_prompt(tmp_path / "best", np.zeros((100, 100), np.float32), METADATA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(os.listdir(tmp_path)) == ["best.npy", "best.safetensors"]
    np.testing.assert_array_equal(load_prompt(saved[0])[0], prompt)
