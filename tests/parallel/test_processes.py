"""Several real processes over loopback: one run, the same result as of one process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.parallel.processes import ProcessOptions, from_environment

ROOT = Path(__file__).parents[2]
FILES = [
    "--gin_file=runs/train.gin",
    "--gin_file=models/t5_1_1_small.gin",
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
]
SHORT = [
    "--gin.BATCH_SIZE=4",
    "--gin.TRAIN_STEPS=4",
    "--gin.LEARNING_RATE=0.01",
    "--gin.train.eval_every=2",
    "--gin.train.checkpoint_every=2",
    "--gin.train.log_every=1",
]
LONG = [
    *SHORT,
    "--gin.TRAIN_STEPS=4000",
    "--gin.train.eval_every=2000",
    "--gin.train.checkpoint_every=3",
    "--gin.processes.heartbeat_seconds=40",
]


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def start(argv, count, devices=1):
    """Starts the command once for each process."""
    address = f"127.0.0.1:{free_port()}"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        # Compiled quickly: what is computed is the same.
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0",
    }
    by_hand = [f"--gin.COORDINATOR_ADDRESS={address}", f"--gin.NUM_PROCESSES={count}"]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "prompt_tuning.cli", *argv]
            + ([*by_hand, f"--gin.PROCESS_ID={index}"] if count > 1 else []),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def finish(processes, timeout=600):
    """Waits for all; returns each one's status, stdout and stderr."""
    done = []
    for process in processes:
        out, errors = process.communicate(timeout=timeout)
        done.append((process.returncode, out, errors))
    return done


def run(argv, count, devices=1):
    done = finish(start(argv, count, devices))
    assert [status for status, _, _ in done] == [0] * count, "\n".join(text for *_, text in done)
    return done


def losses(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def assert_same_result(folder, expected):
    prompts = [np.load(path / "prompt_best.npy") for path in (folder, expected)]
    np.testing.assert_allclose(*prompts, rtol=1e-5, atol=1e-5)
    found, wanted = losses(folder), losses(expected)
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-5)
    summaries = [json.loads((path / "summary.json").read_text()) for path in (folder, expected)]
    for name in ("score", "best_step", "steps", "trained_parameters", "frozen_parameters"):
        assert summaries[0][name] == summaries[1][name], name


@pytest.fixture(scope="module")
def whole(tiny_settings, tmp_path_factory):
    """What one process on one device makes of the run."""
    folder = tmp_path_factory.mktemp("one") / "run"
    run(["train", *FILES, *tiny_settings, *SHORT, f"--gin.MODEL_DIR={folder}"], 1)
    return folder


def test_two_processes_train_as_one_and_only_the_first_writes(whole, tiny_settings, tmp_path):
    folder = tmp_path / "run"
    argv = ["train", *FILES, *tiny_settings, *SHORT, f"--gin.MODEL_DIR={folder}"]
    (_, _, first), (_, _, second) = run(argv, 2)
    assert "Run folder" in first and "Run folder" not in second
    assert_same_result(folder, whole)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    assert "127.0.0.1" not in (folder / "config.gin").read_text()
    # A single process goes on with it: there is nothing left to do, nor anything refused.
    before = (folder / "summary.json").read_bytes()
    run(argv, 1)
    assert (folder / "summary.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("side_by_side", [True, False], ids=["side_by_side", "in_turns"])
def test_two_processes_train_a_population(whole, tiny_settings, tmp_path, side_by_side):
    """By halving, so that all have to agree on who is dropped; seed 0 is the run alone."""
    folder = tmp_path / "run"
    argv = ["train", "--tune", *FILES, *tiny_settings, *SHORT, f"--gin.MODEL_DIR={folder}"]
    argv += ["--gin.TUNE={'SEED': [0, 1]}", f"--gin.population.side_by_side={side_by_side}"]
    (_, first, _), (_, second, _) = run(argv, 2)
    assert "2 members tried" in first and not second
    summary = json.loads((folder / "summary.json").read_text())
    steps = sorted(row["steps"] for row in summary["members"])
    assert steps == [2, 4]
    member = folder / "members" / "seed_0"
    found, wanted = losses(member), losses(whole)
    for step, loss in found.items():
        np.testing.assert_allclose(loss, wanted[step], rtol=1e-5)
    assert len(found) in (2, 4)


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes_and_another_mesh(whole, tiny_settings, tmp_path):
    """Steps 1 and 2 on a mesh of 2 x 1, the rest on 1 x 2 and 2 x 2, in one process and in two."""
    argv = ["train", *FILES, *tiny_settings, *SHORT]
    for name, later in {
        "two": (2, 1, ["--gin.MODEL_PARALLEL=2"]),
        "one": (1, 2, ["--gin.MODEL_PARALLEL=2"]),
        "fsdp": (2, 2, ["--gin.MODEL_PARALLEL=2", "--gin.FSDP=True"]),
    }.items():
        folder = tmp_path / name
        first = [*argv, f"--gin.MODEL_DIR={folder}"]
        # Stopped by a signal to one of them alone, both save the same step.
        processes = start([*first, "--gin.train.log_every=1"], 2)
        wait_until(lambda folder=folder: rows(folder) > 1, processes)
        processes[1].send_signal(signal.SIGTERM)
        done = finish(processes)
        statuses = [status for status, _, _ in done]
        assert statuses in ([143, 143], [0, 0]), done
        count, devices, flags = later
        run([*first, *flags], count, devices)
        assert_same_result(folder, whole)


@pytest.mark.slow
def test_four_processes_train_and_evaluate_as_one(whole, tiny_settings, tmp_path):
    folder = tmp_path / "run"
    run(["train", *FILES, *tiny_settings, *SHORT, f"--gin.MODEL_DIR={folder}"], 4)
    assert_same_result(folder, whole)
    done = run(["evaluate", str(folder), f"--predictions={tmp_path / 'rows'}"], 4)
    assert (
        json.loads(done[0][1])["score"] == json.loads((whole / "summary.json").read_text())["score"]
    )
    assert all(out == "" for _, out, _ in done[1:])
    assert len((tmp_path / "rows").read_text().splitlines()) == 6


def wait_until(happened, processes):
    """Waits for something, and fails if the run ends before it."""
    deadline = time.monotonic() + 900
    while not happened():
        if any(process.poll() is not None for process in processes):
            pytest.fail(f"the run has ended: {finish(processes)}")
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows(folder):
    metrics = folder / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def saved(folder):
    """The steps of the finished checkpoints."""
    return sorted(
        int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()
    )


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_all_and_the_same_command_goes_on(tiny_settings, tmp_path, killed):
    folder = tmp_path / "run"
    argv = ["train", *FILES, *tiny_settings, *LONG, f"--gin.MODEL_DIR={folder}"]
    processes = start(argv, 2)
    wait_until(lambda: saved(folder), processes)
    processes[killed].kill()
    died = time.monotonic()
    (status, _, errors) = finish([processes[1 - killed]], timeout=120)[0]
    assert time.monotonic() - died < 60
    assert status not in (0, None), errors
    lines = [line for line in errors.splitlines() if line.startswith("prompt-tuning: ")]
    assert len(lines) == 1 and "The same command resumes from the last checkpoint" in lines[0], (
        errors
    )
    assert "Traceback" not in errors
    processes[killed].communicate()

    # On another mesh; a signal to one stops both at the same step.
    from_step, written = saved(folder)[-1], rows(folder)
    processes = start([*argv, "--gin.MODEL_PARALLEL=2"], 2)
    wait_until(lambda: rows(folder) > written + 3, processes)
    processes[killed].send_signal(signal.SIGTERM)
    done = finish(processes)
    assert [status for status, _, _ in done] == [143, 143], done
    assert f"Resuming from the checkpoint of step {from_step}." in done[0][2]
    stopped = int(done[0][2].split("Stopped and saved at step ")[1].split(";")[0].replace(",", ""))
    assert saved(folder)[-1] == stopped > from_step


@pytest.mark.slow
def test_a_mistake_is_told_on_every_process(tiny_settings, tmp_path):
    argv = ["train", *FILES, *tiny_settings, *SHORT, "--gin.MODEL_PARALLEL=3"]
    done = finish(start([*argv, f"--gin.MODEL_DIR={tmp_path / 'run'}"], 2))
    for status, _, errors in done:
        assert status == 2
        assert "prompt-tuning: MODEL_PARALLEL is 3, and 2 devices can't be divided" in errors


def test_what_is_given_by_hand_is_checked():
    assert ProcessOptions(coordinator="10.0.0.1:8476", count=2, index=1).index == 1
    with pytest.raises(UserError, match="PROCESS_ID is not set"):
        ProcessOptions(coordinator="10.0.0.1:8476", count=2)
    with pytest.raises(UserError, match="expected host:port"):
        ProcessOptions(coordinator="10.0.0.1", count=2, index=0)
    with pytest.raises(UserError, match="an index from 0 to 1"):
        ProcessOptions(coordinator="10.0.0.1:8476", count=2, index=2)


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0"}


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({**SLURM, "SLURM_NTASKS": "2"}, True),
        ({**SLURM, "SLURM_NTASKS": "1"}, False),
        ({"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}, False),  # a shell that salloc gave
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"TPU_WORKER_HOSTNAMES": "t-0,t-1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ],
)
def test_launchers_are_recognised(environment, several):
    assert (from_environment(environment) is not None) == several


def test_jax_own_variables_are_taken():
    names = {"COORDINATOR_ADDRESS": "h:1", "NUM_PROCESSES": "2", "PROCESS_ID": "1"}
    found = from_environment({f"JAX_{name}": value for name, value in names.items()})
    assert found == ProcessOptions(coordinator="h:1", count=2, index=1)
