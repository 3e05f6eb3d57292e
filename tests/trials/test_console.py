"""Trials of what is on the screen, and of how a process starts and stops."""

import signal
import subprocess
import sys
import time

import pytest


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
