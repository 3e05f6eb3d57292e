"""Killed at any moment, the same command ends with the same prompt and the same record."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import load_prompt
from prompt_tuning.training.logging import WALL_TIME_FIELDS

SCRIPT = Path(__file__).with_name("tiny_run.py")
ROOT = Path(__file__).parents[2]


def start(folder, seconds_per_step):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(seconds_per_step)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(folder):
    process = start(folder, 0)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def rows(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in WALL_TIME_FIELDS}
        for line in lines
    ]


def assert_same_result(folder, expected):
    assert rows(folder) == rows(expected)
    for name in ("prompt_best.npy", "prompt_best.safetensors"):
        (prompt, metadata), (expected_prompt, expected_metadata) = (
            load_prompt(path / name) for path in (folder, expected)
        )
        np.testing.assert_array_equal(prompt, expected_prompt)
        assert metadata == expected_metadata
    assert sorted(p.name for p in (folder / "predictions").iterdir()) == sorted(
        p.name for p in (expected / "predictions").iterdir()
    )
    for path in (expected / "predictions").iterdir():
        assert (folder / "predictions" / path.name).read_bytes() == path.read_bytes()
    summary, expected_summary = (
        json.loads((path / "summary.json").read_text()) for path in (folder, expected)
    )
    for name in ("score", "metrics", "best_step", "steps"):
        assert summary[name] == expected_summary[name]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(folder)
    return folder


def wait_for_row(folder, count, process):
    """Waits until the run has written more than `count` rows, or has ended."""
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") > count:
            return
        time.sleep(0.02)


def test_kill_at_random_moments_then_sigterm(tmp_path, uninterrupted):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for signal_number in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        metrics = tmp_path / "metrics.jsonl"
        written = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        process = start(tmp_path, 0.05)
        # Past where the run was killed before: otherwise it would be killed while it starts.
        wait_for_row(tmp_path, written, process)
        time.sleep(moments.uniform(0, 0.4))
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=120)
        assert process.returncode in (0, -signal_number, 128 + signal_number), errors
    finish(tmp_path)
    assert_same_result(tmp_path, uninterrupted)
    assert np.load(tmp_path / "prompt_best.npy").shape == (2, 16)


def test_the_same_command_on_a_finished_run_changes_nothing(uninterrupted):
    def contents():
        # A commit made meanwhile shows in versions.json, as it should.
        files = [p for p in uninterrupted.iterdir() if p.is_file() and p.stem != "versions"]
        return {path.name: path.read_bytes() for path in files}

    before = contents()
    assert {"metrics.jsonl", "summary.json", "prompt_best.npy"} <= before.keys()
    finish(uninterrupted)
    assert contents() == before


def test_sigterm_saves_the_very_step_and_a_damaged_checkpoint_is_passed_over(
    tmp_path, uninterrupted
):
    process = start(tmp_path, 0.05)
    wait_for_row(tmp_path, 6, process)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    stopped = int(errors.split("Stopped and saved at step ")[1].split(";")[0])
    older, newest = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert newest == stopped < 40
    assert not (tmp_path / "summary.json").exists()

    for path in (tmp_path / "checkpoints" / str(newest) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    errors = finish(tmp_path)
    reports = [line for line in errors.splitlines() if "damaged" in line]
    assert len(reports) == 1
    assert f"checkpoints/{newest}" in reports[0]
    assert f"Resuming from the checkpoint of step {older}." in errors
    assert_same_result(tmp_path, uninterrupted)
