"""Runs in a bucket, of an emulator on loopback: the same files as in a folder, to the byte."""

import json
import signal
import subprocess
import time

import pytest

import prompt_tuning as pt
from prompt_tuning.files import as_path, files_in
from prompt_tuning.recipes.scripts import COMMAND
from prompt_tuning.training.logging import WALL_TIME_FIELDS, read_rows


def metrics_of(folder):
    return [
        {name: value for name, value in row.items() if name not in WALL_TIME_FIELDS}
        for row in read_rows(as_path(folder) / "metrics.jsonl")
    ]


def assert_same_run(folder, expected):
    assert metrics_of(folder) == metrics_of(expected)
    for path in ("prompt_best.npy", "prompt_best.safetensors", "predictions/step_00000002.jsonl"):
        assert (as_path(folder) / path).read_bytes() == (as_path(expected) / path).read_bytes()


def test_a_run_in_a_bucket_resumes_and_is_that_of_a_folder(
    bucket, rows, train_flags, command, tmp_path
):
    as_path(f"{bucket}/r.csv").write_bytes(rows.read_bytes())
    more = {"train.log_every": 1, "train.checkpoint_every": 1, "train.tensorboard": True}
    expected, run = tmp_path / "run", f"{bucket}/runs/r"
    assert command("train", *train_flags(MODEL_DIR=expected, **more)).status == 0
    flags = train_flags(rows=f"{bucket}/r.csv", MODEL_DIR=run, **more)
    assert command("train", *flags, "--gin.TRAIN_STEPS=2").status == 0
    resumed = command("train", *flags)
    assert "Resuming from the checkpoint of step 2." in resumed.err
    assert_same_run(run, expected)
    found = {str(path.relative_to(as_path(run))) for path in files_in(as_path(run))}
    assert {"config.gin", "task.json", "summary.json", "checkpoints/4/_CHECKPOINT_METADATA"} < found
    assert sum(path.startswith("tensorboard/") for path in found) == 2

    scored = json.loads(command("evaluate", run).out)
    alone = json.loads(command("evaluate", expected).out)
    assert scored == {**alone, "prompt": f"{run}/prompt_best.safetensors"}
    assert command("train", *flags, "--gin.SEED=1").message.startswith(
        f"prompt-tuning: {run} belongs to a run with another configuration"
    )
    report = command("report", run, "--no_neighbors")
    assert report.out.strip() == f"{run}/report.html"
    assert b"<html" in as_path(f"{run}/report.html").read_bytes()


@pytest.mark.slow
def test_a_run_in_a_bucket_survives_kill_9(bucket, rows, train_flags, command, tmp_path):
    more = {"TRAIN_STEPS": 60, "train.log_every": 1, "train.checkpoint_every": 5}
    expected, run = tmp_path / "run", f"{bucket}/run"
    assert command("train", *train_flags(MODEL_DIR=expected, **more)).status == 0
    arguments = [*COMMAND, "train", *train_flags(MODEL_DIR=run, **more)]
    for rows_before_the_kill in (6, 20, 40):
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        metrics = as_path(run) / "metrics.jsonl"
        while process.poll() is None:
            if metrics.exists() and len(read_rows(metrics)) >= rows_before_the_kill:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, errors
    resumed = command("train", *arguments[len(COMMAND) + 1 :])
    assert "Resuming from the checkpoint of step" in resumed.err
    assert_same_run(run, expected)


@pytest.mark.slow
def test_every_command_on_runs_in_a_bucket(bucket, rows, train_flags, command, tmp_path):
    for name in ("train", "questions"):
        as_path(f"{bucket}/{name}.csv").write_bytes(rows.read_bytes())
    run, second, tuned = f"{bucket}/run", f"{bucket}/second", f"{bucket}/tuned"
    flags = train_flags(rows=f"{bucket}/train.csv", TEST_FILE=f"{bucket}/train.csv")
    assert command("train", *flags, f"--gin.MODEL_DIR={run}").status == 0
    from_file = ["--gin_file=prompts/from_file.gin", f"--gin.PROMPT_FILE={run}/prompt_best.npy"]
    more = [*from_file, f"--gin.MODEL_DIR={second}", "--gin.TRAIN_STEPS=14", "--profile=2"]
    assert command("train", *flags, *more).status == 0
    assert any(path.name == "perfetto_trace.json.gz" for path in files_in(as_path(second)))
    assert command("train", *flags, f"--gin.MODEL_DIR={tuned}", "--tune").status == 0
    assert command("evaluate", tuned, "--split=test", f"--prompt={second}").status == 0
    assert json.loads(command("neighbors", run, "--json").out or "{}") is not None
    answers = command("infer", run, f"--input={bucket}/questions.csv").out.splitlines()
    assert len(answers) == 6
    many = ["--prompts", f"a={run}", f"b={second}/prompt_best.safetensors"]
    asked = tmp_path / "asked.jsonl"
    asked.write_text('{"prompt": "b", "text": "a dog ran ."}\n')
    base = "--gin_file=models/tinyworld_tiny.gin"
    assert "prediction" in command("infer", base, *many, f"--input={asked}").out
    assert command("ensemble", run, second).status == 0
    written = f"{run}/predictions/test.jsonl"
    assert command("evaluate", run, "--split=test", f"--predictions={written}").status == 0
    assert b"test" in as_path(command("report", run).out.strip()).read_bytes()

    sweep = tmp_path / "seeds.gin"
    settings = {"TRAIN_STEPS": 4, "train.eval_every": 2, "BATCH_SIZE": 4}
    files = ["models/tinyworld_tiny", "tasks/tinyworld_rte", "prompts/sampled_vocabulary"]
    sweep.write_text(
        f"sweep.files = {[f'{name}.gin' for name in [*files, 'runs/train']]}\n"
        f"sweep.settings = {settings}\nsweep.grid = {{'SEED': [0, 1]}}\n"
    )
    folder = f"{bucket}/seeds"
    assert command("sweep", sweep, f"--folder={folder}").status == 0
    assert "2 runs, 2 finished" in command("sweep", sweep, f"--folder={folder}").err
    assert f"{folder}/results.csv" in command("results", folder).err
    assert command("report", folder).out.strip() == f"{folder}/report.html"


@pytest.mark.slow
def test_the_api_on_runs_in_a_bucket(bucket, rows):
    base = pt.load("tinyworld_tiny")
    method = pt.soft_prompt(length=3, initializer=pt.sampled_vocabulary())
    given = [{"text": "the dog is tall .", "label": "yes"}, {"text": "a cat ran .", "label": "no"}]
    arguments = dict(inputs="{text}", targets="{label}", validation=given, steps=4, batch_size=2)
    run = pt.train(base, method, given, folder=f"{bucket}/run", quiet=True, **arguments)
    again = pt.load_run(f"{bucket}/run", base)
    assert str(again.folder) == f"{bucket}/run" and again.score == run.score
    assert again.predict(["a dog"]) == run.predict(["a dog"])
    assert again.evaluate().score == run.score
    method = pt.soft_prompt(length=3, initializer=pt.from_file(f"{bucket}/run"))
    runs = pt.train_many(
        base,
        method,
        given,
        folder=f"{bucket}/many",
        members={"a": {"seed": 0}, "b": {"seed": 1}},
        quiet=True,
        **arguments,
    )
    assert {str(run.folder) for run in runs.values()} == {
        f"{bucket}/many/members/{name}" for name in "ab"
    }
