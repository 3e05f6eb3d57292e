"""Signals to real processes, in C code like the compiler's, where no Python handler runs."""

import signal
import subprocess
import sys

import pytest

BUSY = """
import hashlib, sys
from prompt_tuning.training.signals import StopRequest, leave_when_interrupted
with leave_when_interrupted(), StopRequest() as stop:
    if {saving}:
        stop.begin_saving()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
    print("noted", stop.signal_number, flush=True)
"""


def start(*, saving, rounds):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY.format(saving=saving, rounds=rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


FOREVER = 2**31 - 1


def test_the_first_signal_is_acknowledged_at_once_and_the_second_ends_the_process():
    process = start(saving=True, rounds=FOREVER)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == (
        "Stopping after this step; press Ctrl-C again to stop at once.\n"
    )
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "\nInterrupted.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_with_nothing_to_save_a_signal_ends_the_process(number):
    process = start(saving=False, rounds=FOREVER)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == 128 + number


def test_a_noted_signal_leaves_the_block_to_its_end():
    process = start(saving=True, rounds=10**6)
    process.send_signal(signal.SIGTERM)
    out, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "noted 15\n"
    assert errors == "Stopping after this step.\n"
