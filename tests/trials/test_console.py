"""Trials of what is on the screen, and of how a process starts and stops."""

import signal
import subprocess
import sys
import time

import pytest

from prompt_tuning import host_memory
from prompt_tuning.cli import configurables, gin_config  # noqa: F401 - registered with gin
from prompt_tuning.cli.parsers import parse
from prompt_tuning.recipes.scripts import status_of


def interrupted(arguments, seconds):
    """Runs a command in a process and sends Ctrl-C after so long; returns its status and stderr."""
    program = [sys.executable, "-m", "prompt_tuning.cli.__main__", *map(str, arguments)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors, time.monotonic() - sent


def test_s4_ctrl_c_during_imports_is_one_line(train_flags, tmp_path):
    flags = train_flags(MODEL_DIR=tmp_path / "run")
    status, errors, _ = interrupted(["train", *flags], 0.6)
    assert status == 130
    assert errors.strip() == "Interrupted."


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 2, 3, 5, 8, 12, 20])
def test_s4_ctrl_c_is_heeded_at_any_moment(train_flags, tmp_path, seconds):
    flags = train_flags(MODEL_DIR=tmp_path / "run", TRAIN_STEPS=10**6)
    status, errors, waited = interrupted(["train", *flags], seconds)
    assert status == 130
    assert waited < 10
    assert "Traceback" not in errors and "Exception ignored" not in errors
    told = errors.strip().splitlines()[-1]
    assert told == "Interrupted." or told.startswith("Stopped and saved at step ")
    if told != "Interrupted.":
        assert "Stopping after this step; press Ctrl-C again to stop at once." in errors


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("s3://nobody/run", "paths of s3:// can't be read or written; use gs://BUCKET/..."),
        ("gs://nobody/run", "Can't reach gs://nobody/run: there is no network"),
        ("'gs://nobody/run'", "Can't reach gs://nobody/run: there is no network"),
    ],
)
def test_trial_03_a_bucket_that_cannot_be_model_dir_is_refused_at_once(
    command, train_flags, tmp_path, monkeypatch, no_network, where, why
):
    monkeypatch.chdir(tmp_path)
    result = command("train", *train_flags(MODEL_DIR=where))
    assert result.status == 2
    assert why in result.message
    assert len(result.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


def test_trial_03_a_bucket_in_a_gin_file_or_as_output_is_refused(
    command, train_flags, tmp_path, no_network
):
    (tmp_path / "mine.gin").write_text("MODEL_DIR = 'gs://nobody/run'\n")
    result = command("train", *train_flags(), f"--gin_file={tmp_path / 'mine.gin'}")
    assert result.status == 2
    assert "Can't reach gs://nobody/run" in result.message
    result = command("merge", tmp_path, "--output=gs://nobody/model")
    assert result.status == 2
    assert "gs://nobody/model" in result.message


def test_s9_a_tilde_is_the_home_folder_everywhere(train_flags, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.gin").write_text("MODEL_DIR = '~/run'\nX = ['~', 'a~b']\ntrain.folder = %X")
    flags = train_flags(TRAIN_FILE="~/r.csv", DATA_DIR="~")
    named = ["--prompts", "a=~/a", "b=~/b"]
    args = parse("infer", [*flags, "~/run", "--prompt=~/p.npy", *named])
    assert args.run == f"{tmp_path}/run"
    assert args.prompt == f"{tmp_path}/p.npy"
    assert args.prompts == [f"a={tmp_path}/a", f"b={tmp_path}/b"]
    gin_config.load([*args.gin_file, str(tmp_path / "mine.gin")], args.gin_bindings)
    assert gin_config.macro("MODEL_DIR") == f"{tmp_path}/run"
    assert gin_config.macro("TRAIN_FILE") == f"{tmp_path}/r.csv"
    assert gin_config.macro("DATA_DIR") == str(tmp_path)
    assert gin_config.macro("X") == [str(tmp_path), "a~b"]
    assert gin_config.macro("INPUT_TEMPLATE") == "{text}"


def test_s9_an_empty_path_is_refused(command, train_flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for flag in ("--gin.MODEL_DIR=", "--gin.TRAIN_FILE=", "--gin_file="):
        result = command("train", *train_flags(MODEL_DIR="run"), flag)
        assert result.status == 2, flag
        assert "empty" in result.message
        assert len(result.err.splitlines()) == 1
    assert command("evaluate", "").status == 2
    assert not (tmp_path / "run").exists()


def test_s9_a_file_as_model_dir_is_refused(command, train_flags):
    result = command("train", *train_flags(MODEL_DIR="/etc/passwd/run"))
    assert result.status == 2
    assert "/etc/passwd is a file; MODEL_DIR must be a folder." in result.message


@pytest.mark.slow
def test_trial_29_a_batch_without_room_is_refused_before_it_runs(
    command, train_flags, tmp_path, monkeypatch
):
    monkeypatch.setattr(host_memory, "free_memory", lambda: 1000)
    result = command("train", *train_flags(MODEL_DIR=tmp_path / "run"))
    assert result.status == 2
    assert "Out of memory: a batch needs" in result.message
    assert "BATCH_SIZE" in result.message and "prompt-tuning plan" in result.message
    assert "Traceback" not in result.err


@pytest.mark.slow
@pytest.mark.parametrize("setting", [{"PROMPT_LENGTH": 100_000}, {"BATCH_SIZE": 10_000_000}])
def test_trial_29_settings_too_large_are_one_line(command, train_flags, tmp_path, setting):
    result = command("train", *train_flags(MODEL_DIR=tmp_path / "run", **setting))
    assert result.status == 2
    assert result.message.startswith("prompt-tuning: Out of memory")
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes."),
            ": 4.0 GiB were requested at once",
        ),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate 35.2GiB on device"),
            ": 35.2GiB were requested at once",
        ),
        (
            MemoryError("Unable to allocate 4.60 GiB for an array"),
            ": 4.60 GiB were requested at once",
        ),
        (MemoryError(), ""),
    ],
)
def test_trial_29_errors_of_memory_are_one_line(capsys, error, asked):
    def command(argv):
        raise error

    assert status_of(command, []) == 2
    assert capsys.readouterr().err.startswith(
        f"prompt-tuning: Out of memory{asked}. Lower BATCH_SIZE"
    )
