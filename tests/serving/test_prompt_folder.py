"""Prompts by name from one folder: found, loaded again when they change, and never from outside."""

import os

import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt
from prompt_tuning.errors import UserError
from prompt_tuning.serving.prompt_folder import NoSuchPromptFile, PromptFolder


def save(path, value=1.0, width=16):
    np.save(path, np.full((2, width), value, np.float32))


def test_the_files_of_the_folder_are_the_prompts(folder, predictor):
    assert [(each.name, each.length) for each in folder.loaded] == [
        ("rte", 3),
        ("wic", 1),
        ("wsc", 8),
    ]
    # Of two files the one with metadata is read.
    assert folder.loaded[0].metadata.task == "tinyworld_rte"
    assert set(predictor.prompts) == {"rte", "wic", "wsc"}


def test_a_look_at_the_folder_finds_what_is_new_changed_and_gone(folder, predictor):
    assert folder.rescan().loaded == [], "nothing has changed"
    save(folder.folder / "new.npy")
    save_prompt(folder.folder / "rte", np.full((4, 16), 2.0), PromptMetadata())
    (folder.folder / "wic.npy").unlink()
    save(folder.folder / "wide.npy", width=17)
    (folder.folder / "half.safetensors").write_bytes(b"\x00")
    (folder.folder / ".rte.safetensors.99.tmp").write_bytes(b"others' half-written file")
    (folder.folder / "notes.txt").write_text("nothing to do with it")
    changes = folder.rescan()
    assert changes.loaded == ["new", "rte"]
    assert changes.removed == ["wic"]
    assert set(changes.refused) == {"half", "wide"}
    assert "17 wide" in changes.refused["wide"]
    assert set(predictor.prompts) == {"rte", "wsc", "new"}
    assert predictor.prompts["rte"].encoder_prompt.shape == (1, 4, 16)


def test_a_changed_file_that_is_broken_leaves_the_prompt_as_it_was(folder, predictor):
    before = predictor.prompts["rte"]
    (folder.folder / "rte.safetensors").write_bytes(b"cut off")
    assert set(folder.rescan().refused) == {"rte"}
    with pytest.raises(UserError, match="rte.safetensors is not a prompt file"):
        folder.load("rte")
    assert predictor.prompts["rte"] is before


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "..",
        ".",
        "",
        "/etc/passwd",
        "a/../../secret",
        "..\\secret",
        "%2e%2e%2fsecret",
        "secret\0",
        "secret\n",
        "n" * 101,
        "tiefe/secret",
        "~root",
        "rté",
    ],
)
def test_names_hold_no_path(folder, name):
    save(folder.folder.parent / "secret.npy")
    with pytest.raises(UserError, match="can't be the name of a prompt"):
        folder.load(name)


def test_an_absolute_path_is_no_name(folder):
    save(folder.folder.parent / "secret.npy")
    with pytest.raises(UserError, match="can't be the name"):
        folder.load(str(folder.folder.parent / "secret"))


@pytest.mark.parametrize("through_a_folder", [False, True])
def test_links_lead_nowhere_outside(folder, predictor, through_a_folder):
    outside = folder.folder.parent / "elsewhere"
    outside.mkdir()
    save(outside / "secret.npy")
    link = folder.folder / "secret.npy"
    if through_a_folder:
        (folder.folder / "inside").symlink_to(outside)
        link.symlink_to(folder.folder / "inside" / "secret.npy")
    else:
        link.symlink_to(outside / "secret.npy")
    with pytest.raises(UserError, match="'secret' links to a file outside the prompt folder"):
        folder.load("secret")
    assert "links to" in folder.rescan().refused["secret"]
    assert "secret" not in predictor.prompts


def test_links_inside_are_followed_and_the_folder_may_be_one(folder, predictor, tmp_path):
    os.symlink("rte.safetensors", folder.folder / "same.safetensors")
    (tmp_path / "link").symlink_to(folder.folder)
    again = PromptFolder(tmp_path / "link", predictor)
    assert again.load("same").length == 3
    assert again.load("rte").length == 3


def test_a_name_without_a_file(folder):
    with pytest.raises(NoSuchPromptFile, match=r"no rte2.safetensors or rte2.npy.*'rte'"):
        folder.load("rte2")


def test_a_folder_that_is_none(tmp_path, predictor):
    with pytest.raises(UserError, match="doesn't exist"):
        PromptFolder(tmp_path / "none", predictor)
