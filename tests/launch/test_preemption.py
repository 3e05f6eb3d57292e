"""A scheduler that takes its machines away at random: the written job ends with the same result."""

import json
import os
import random
import signal
import subprocess
import time

import numpy as np
import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.training.logging import WALL_TIME_FIELDS, read_rows

FILES = [
    "--gin_file=runs/train.gin",
    "--gin_file=models/t5_1_1_small.gin",
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
]
LENGTH = [
    "--gin.TRAIN_STEPS=60",
    "--gin.train.checkpoint_every=7",
    "--gin.train.eval_every=20",
    "--gin.train.log_every=1",
    "--gin.LEARNING_RATE=0.05",
]
TIMES = 4


class Scheduler:
    """Runs a batch script as SLURM would, on a machine that it often wants back."""

    def __init__(self, machine, script, seed):
        self._machine, self._script = machine, script
        self._moments = random.Random(seed)

    def start(self):
        (self._machine.folder / "step").unlink(missing_ok=True)
        return subprocess.Popen(
            ["bash", "-c", self._script],
            env=self._machine.environment(SLURM_JOB_ID="1"),
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )

    def take_back(self, metrics) -> int:
        """Starts the job and ends it at a random moment; returns the signal that it got."""
        before = metrics.stat().st_size if metrics.exists() else 0
        job = self.start()
        # Past where it was ended before, now and then; else while it is still starting.
        may_start = self._moments.random() < 0.75
        deadline = time.monotonic() + (300 if may_start else self._moments.uniform(0, 4))
        while job.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.stat().st_size > before:
                break
            time.sleep(0.01)
        time.sleep(self._moments.uniform(0, 0.2))
        number = self._moments.choice([signal.SIGTERM, signal.SIGKILL])
        if number == signal.SIGKILL:  # the node is lost, and all on it
            os.killpg(job.pid, number)
        elif (step := self._machine.folder / "step").exists() and job.poll() is None:
            os.kill(int(step.read_text()), number)
        _, errors = job.communicate(timeout=300)
        expected = {signal.SIGTERM: (0, 143), signal.SIGKILL: (0, -signal.SIGKILL)}[number]
        # Python has no handler yet while it starts; then SIGTERM ends it as it does any program.
        assert job.returncode in expected, errors
        return number


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_a_job_that_is_taken_back_at_random_ends_as_one_that_was_not(
    real_machine, tiny_settings, tmp_path, seed, capsys
):
    whole, taken = tmp_path / "whole", tmp_path / "taken"

    def job(folder):
        command = ["train", *FILES, *tiny_settings, *LENGTH, f"--gin.MODEL_DIR={folder}"]
        main(["launch", "slurm", "--", *command])
        return capsys.readouterr().out

    done = Scheduler(real_machine, job(whole), seed).start()
    _, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors

    scheduler = Scheduler(real_machine, job(taken), seed)
    signals = [scheduler.take_back(taken / "metrics.jsonl") for _ in range(TIMES)]
    assert {signal.SIGTERM, signal.SIGKILL} == set(signals), "choose another seed"
    done = scheduler.start()
    _, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors

    def rows(folder):
        return [
            {name: value for name, value in row.items() if name not in WALL_TIME_FIELDS}
            for row in read_rows(folder / "metrics.jsonl")
        ]

    assert rows(taken) == rows(whole)
    assert rows(whole)[-1]["step"] == 60
    np.testing.assert_array_equal(
        np.load(taken / "prompt_best.npy"), np.load(whole / "prompt_best.npy")
    )
    for path in (whole / "predictions").iterdir():
        assert (taken / "predictions" / path.name).read_bytes() == path.read_bytes()
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (taken, whole)]
    for name in ("score", "metrics", "best_step", "steps"):
        assert summaries[0][name] == summaries[1][name]
