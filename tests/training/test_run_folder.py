import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.training.run_folder import RunFolder

SETTINGS = {"TRAIN_STEPS": 10, "lengths": (512, 8), "optimizer": "@adafactor()"}


def open_folder(path, *, begun=False, overwrite=False, **changes):
    folder = RunFolder.open(
        path, settings={**SETTINGS, **changes}, config_text="TRAIN_STEPS = 10\n",
        overwrite=overwrite,
    )  # fmt: skip
    if begun:
        folder.metrics.write_text('{"step": 0}\n')
    return folder


def test_a_new_folder_and_the_same_run_again(tmp_path):
    path = tmp_path / "a" / "run"
    open_folder(path, begun=True)
    folder = open_folder(path)
    assert (path / "config.gin").read_text() == "TRAIN_STEPS = 10\n"
    assert json.loads((path / "settings.json").read_text())["lengths"] == [512, 8]
    assert folder.metrics.read_text() == '{"step": 0}\n'


def test_versions(tmp_path):
    open_folder(tmp_path)
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert versions["packages"]["optax"]
    assert versions["devices"] == ["cpu"]
    assert versions["git_commit"] is None or len(versions["git_commit"].split("-")[0]) == 40
    assert versions["resumed_with"] == []


def test_going_on_with_other_versions_is_recorded_once(tmp_path):
    open_folder(tmp_path)
    path = tmp_path / "versions.json"
    started = {"packages": {"jax": "0.9"}, "resumed_with": []}
    path.write_text(json.dumps(started))
    open_folder(tmp_path)
    open_folder(tmp_path)
    versions = json.loads(path.read_text())
    assert versions["packages"] == {"jax": "0.9"}
    assert len(versions["resumed_with"]) == 1


def test_another_run_is_told_what_differs_and_what_to_do(tmp_path):
    open_folder(tmp_path, begun=True)
    with pytest.raises(UserError) as caught:
        open_folder(tmp_path, TRAIN_STEPS=20, SEED=1)
    message = str(caught.value)
    assert "SEED is not set there, 1 now; TRAIN_STEPS is 10 there, 20 now" in message
    assert "--overwrite" in message
    assert "\n" not in message


def test_many_differences_are_counted(tmp_path):
    open_folder(tmp_path, begun=True)
    with pytest.raises(UserError, match="and 3 more"):
        open_folder(tmp_path, **{f"NAME_{i}": i for i in range(13)})


def test_overwriting_leaves_strange_files(tmp_path):
    open_folder(tmp_path, begun=True)
    (tmp_path / "checkpoints" / "5").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    folder = open_folder(tmp_path, TRAIN_STEPS=20, overwrite=True)
    assert not folder.metrics.exists()
    assert not any(folder.checkpoints.iterdir())
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_run_without_its_settings(tmp_path):
    open_folder(tmp_path, begun=True)
    (tmp_path / "settings.json").unlink()
    with pytest.raises(UserError, match=r"without its settings\.json"):
        open_folder(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", "3", "[" * 100_000, b"\xff"], ids=lambda c: c[:9])
def test_a_run_whose_settings_are_damaged(tmp_path, content):
    open_folder(tmp_path, begun=True)
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / "settings.json").write_bytes(content)
    with pytest.raises(UserError, match=r"settings\.json is not JSON of settings: .*--overwrite"):
        open_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "[1]", '{"resumed_with": 3}', "[" * 100_000])
def test_a_damaged_record_of_versions_begins_anew(tmp_path, content):
    """Nothing depends on it, so the run goes on."""
    open_folder(tmp_path, begun=True)
    (tmp_path / "versions.json").write_text(content)
    open_folder(tmp_path)
    assert json.loads((tmp_path / "versions.json").read_text())["packages"]["optax"]


def test_predictions_are_one_example_a_line(tmp_path):
    folder = open_folder(tmp_path)
    folder.write_predictions(500, [{"idx": 0, "prediction": "naïve"}, {"idx": 1}])
    lines = (folder.predictions / "step_00000500.jsonl").read_text().splitlines()
    assert [json.loads(line)["idx"] for line in lines] == [0, 1]
    assert "naïve" in lines[0]


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Can't write .*: Not a directory") as caught:
        open_folder(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UserError, match="Can't write .*: Permission denied"):
        open_folder(tmp_path / "closed" / "run")


def test_a_folder_is_one_process_s_until_it_dies(tmp_path):
    script = (
        "import sys\nfrom prompt_tuning.training.run_folder import RunFolder\n"
        "RunFolder.open(sys.argv[1], settings={}, config_text='theirs')\n"
        "print('open', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        for overwrite in (False, True):
            with pytest.raises(UserError, match="Another process is training in") as caught:
                open_folder(tmp_path, overwrite=overwrite)
            assert str(tmp_path) in str(caught.value)
            assert "\n" not in str(caught.value)
        assert (tmp_path / "config.gin").read_text() == "theirs"
        other.kill()
    open_folder(tmp_path)
    open_folder(tmp_path)  # and this process may come back to what is its own


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert open_folder(tmp_path).path == tmp_path
