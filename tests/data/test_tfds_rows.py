"""SuperGLUE from TFDS is the same text as from the official files.

TFDS really prepares its data sets here, from files that are laid where it would have unpacked
its downloads.
"""

import socket

import pytest

from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tasks.superglue import SUPERGLUE_TASKS
from prompt_tuning.errors import UserError


@pytest.fixture
def tfds_from(monkeypatch, tmp_path):
    """Makes TFDS unpack `folder` instead of a download; returns the name of such a source."""
    from prompt_tuning.data.quiet_tensorflow import tfds

    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "cache"))

    def use(folder) -> str:
        monkeypatch.setattr(
            tfds.download.DownloadManager, "download_and_extract", lambda self, url: str(folder)
        )
        return f"tfds:{tmp_path / 'tfds'}"

    return use


def texts(task, split, data_dir) -> set[tuple[str, str]]:
    return {(e.inputs, e.targets) for e in task.examples(split, data_dir)}


@pytest.mark.parametrize("name", [*SUPERGLUE_TASKS, "axb", "axg"])
def test_same_text_from_both(tfds_from, tiny_superglue, name):
    data_dir = tfds_from(tiny_superglue)
    task = get_task(f"superglue_{name}_with_name")
    for split in task.splits:
        official = texts(task, split, str(tiny_superglue))
        assert official and texts(task, split, data_dir) == official


@pytest.mark.parametrize("name", ["cb", "copa"])
def test_same_text_from_both_on_the_real_files(tfds_from, real_data, name):
    data_dir = tfds_from(real_data / "superglue")
    task = get_task(f"superglue_{name}")
    for split in task.splits:
        official = list(task.examples(split, str(real_data / "superglue")))
        from_tfds = list(task.examples(split, data_dir))
        assert len(from_tfds) == len(official)
        by_index = {e.metadata["idx"]: e for e in from_tfds}
        assert [by_index[e.metadata["idx"]] for e in official] == official


def test_rows_are_read_from_tfds_once(tfds_from, tiny_superglue, monkeypatch):
    data_dir = tfds_from(tiny_superglue)
    task = get_task("superglue_multirc")
    first = list(task.examples("validation", data_dir))
    monkeypatch.setattr("prompt_tuning.data.tfds_rows.read_tfds", None)
    assert list(task.examples("validation", data_dir)) == first


def test_failed_download_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PROMPT_TUNING_CACHE", str(tmp_path / "cache"))

    def no_network(*args, **kwargs):
        raise socket.gaierror("no network")

    from prompt_tuning.data.quiet_tensorflow import tfds

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", no_network)
    with pytest.raises(
        UserError, match="cannot prepare super_glue/rte in .*no network.*official files"
    ):
        list(get_task("superglue_rte").examples("train", f"tfds:{tmp_path}"))


def test_unknown_data_set(tmp_path):
    from prompt_tuning.data.tfds_rows import read_tfds

    with pytest.raises(UserError, match="TFDS cannot prepare no_such_set/x"):
        read_tfds("no_such_set/x", "1.0.0", str(tmp_path), "train")


def test_old_version_is_refused(tfds_from, tiny_superglue, tmp_path):
    from prompt_tuning.data.tfds_rows import read_tfds

    data_dir = tfds_from(tiny_superglue).removeprefix("tfds:")
    with pytest.raises(UserError, match=r"has super_glue/cb:1.0.2; expected 1.0.3 or newer"):
        read_tfds("super_glue/cb", "1.0.3", data_dir, "train")
    with pytest.raises(UserError, match="no split 'dev'; expected one of train, validation, test"):
        read_tfds("super_glue/cb", "1.0.2", data_dir, "dev")
