"""From the command line to a score, and the same score again from the prompt's file."""

import functools
import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import load_prompt
from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.infer import _as_they_come, _full_groups
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

FILES = [
    "--gin_file=runs/train.gin",
    "--gin_file=models/t5_1_1_small.gin",
    "--gin_file=tasks/superglue_rte.gin",
    "--gin_file=prompts/class_label.gin",
]


@pytest.fixture(scope="module")
def run_folder(tiny_settings, tmp_path_factory):
    """A finished run of four steps, evaluated by rank classification; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    flags = ["--gin.TRAIN_STEPS=4", "--gin.train.eval_every=2", "--gin.predict.method=rank"]
    main(["train", *FILES, *tiny_settings, *flags, f"--gin.MODEL_DIR={folder}"])
    return folder


def test_train_writes_a_run_folder(run_folder):
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary["task"] == "superglue_rte"
    assert summary["model"] == "tiny_random"
    assert summary["trained_parameters"] == 3 * 16
    # Six rows of about a hundred pieces, of which forty are kept.
    assert summary["truncated_examples"]["superglue_rte train"]["inputs"] == 6
    prompt, metadata = load_prompt(run_folder / "prompt_best.safetensors", (3, 16))
    assert np.array_equal(prompt, np.load(run_folder / "prompt_best.npy"))
    assert metadata.score == summary["score"]
    assert metadata.step == summary["best_step"]
    assert len(metadata.vocabulary_hash) == 64
    config = (run_folder / "config.gin").read_text()
    assert "LEARNING_RATE = 0.3" in config
    assert "adafactor.clipping_threshold = 1.0" in config
    assert "sampled_vocabulary" not in config, "what was not used"


def test_evaluate_reproduces_the_score_to_the_last_digit(run_folder, tmp_path, capsys):
    summary = json.loads((run_folder / "summary.json").read_text())
    capsys.readouterr()
    main(["evaluate", str(run_folder), f"--predictions={tmp_path / 'predictions.jsonl'}"])
    printed = capsys.readouterr()
    assert json.loads(printed.out)["score"] == summary["score"]
    assert "the same" in printed.err and "not the same" not in printed.err
    assert "none of the labels" not in printed.err
    rows = [json.loads(line) for line in (tmp_path / "predictions.jsonl").open()]
    right = [row["prediction"] == row["targets"] for row in rows]
    assert sum(right) / len(right) == summary["metrics"]["accuracy"]
    assert {row["prediction"] for row in rows} <= {"entailment", "not_entailment"}


def test_evaluate_counts_answers_that_are_no_label(run_folder, tmp_path, capsys):
    written = tmp_path / "predictions.jsonl"
    main(["evaluate", str(run_folder), "--gin.predict.method=greedy", f"--predictions={written}"])
    answers = [json.loads(line)["prediction"] for line in written.open()]
    other = [text for text in answers if text not in ("entailment", "not_entailment")]
    assert other, "a random model writes no label"
    told = (
        f"{len(other)} of {len(answers)} answers are none of the labels; the first is {other[0]!r}."
    )
    assert told in capsys.readouterr().err


def test_evaluate_takes_any_prompt_file(run_folder, tiny_prompt_file, capsys):
    capsys.readouterr()
    main(["evaluate", str(run_folder), f"--prompt={tiny_prompt_file}", "--split=train"])
    found = json.loads(capsys.readouterr().out)
    assert found["prompt"] == str(tiny_prompt_file)
    assert found["split"] == "train"


def test_infer_answers_lines_and_jsonl_in_order(run_folder, tmp_path, monkeypatch, capsys):
    rte = {"premise": "A cat sat.", "hypothesis": "A cat sat."}
    lines = ["one line", json.dumps({"inputs": "two", "id": 7}), "", json.dumps(rte), "four"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    capsys.readouterr()
    main(["infer", str(run_folder)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    empty = rows.pop(2)
    assert empty == {"inputs": "", "prediction": None}
    assert all(row.pop("prediction") in ("entailment", "not_entailment") for row in rows)
    assert all(row.pop("scores").keys() == {"entailment", "not_entailment"} for row in rows)
    assert rows == [{"inputs": "one line"}, {"inputs": "two", "id": 7}, rte, {"inputs": "four"}]


def test_infer_predicts_what_evaluation_predicted(run_folder, tmp_path, tiny_superglue):
    output = tmp_path / "answers.jsonl"
    rows = tiny_superglue / "RTE" / "val.jsonl"
    main(["infer", str(run_folder), f"--input={rows}", f"--output={output}"])
    answers = {row["idx"]: row["prediction"] for row in map(json.loads, output.open())}
    main(["evaluate", str(run_folder), f"--predictions={tmp_path / 'p.jsonl'}"])
    evaluated = {r["idx"]: r["prediction"] for r in map(json.loads, (tmp_path / "p.jsonl").open())}
    assert answers == evaluated


def test_infer_tells_what_is_no_text(run_folder, tmp_path, capsys):
    lines = tmp_path / "lines.jsonl"
    for content, told in {
        b'{"inputs": "a"}\n{"inputs": "\\ud800"}\n': r"lines.jsonl:2: '\ud800' is half a character",
        b'{"premise": "\\ud83d", "hypothesis": "b"}': r"lines.jsonl:1: '\ud83d' is half a",
        b"caf\xe9\n": "lines.jsonl is not UTF-8 text",
    }.items():
        lines.write_bytes(content)
        capsys.readouterr()
        assert status_of(main, ["infer", str(run_folder), f"--input={lines}"]) == USER_ERROR
        error = capsys.readouterr().err
        assert told in error and "Traceback" not in error and error.count("\n") == 1
    # Two halves that belong together are one character.
    lines.write_text(r'{"inputs": "\ud83d\ude00"}')
    main(["infer", str(run_folder), f"--input={lines}"])
    assert json.loads(capsys.readouterr().out)["inputs"] == "\U0001f600"


def test_neighbors_prints_a_line_a_position(run_folder, capsys):
    capsys.readouterr()
    main(["neighbors", str(run_folder), "-k", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]


def test_infer_waits_only_for_the_first_row_of_a_group():
    """Someone who types gets an answer before the group is full."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as reader, os.fdopen(write_end, "w", buffering=1) as writer:
        groups = _as_they_come(reader, 4)
        writer.write("a\n")
        assert next(groups) == ["a\n"]
        writer.write("b\nc\n")
        rest = next(groups)
        writer.close()
        assert [*rest, *(line for group in groups for line in group)] == ["b\n", "c\n"]


def test_files_are_answered_in_full_groups():
    assert list(_full_groups(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(tiny_flags, tmp_path):
    """kill -9 at random steps, then the same command: the same prompt and metrics, bit for bit."""
    length = [
        "--gin.TRAIN_STEPS=40",
        "--gin.train.checkpoint_every=5",
        "--gin.train.eval_every=10",
        "--gin.train.log_every=1",
        "--gin.LEARNING_RATE=0.05",
    ]
    command = [sys.executable, "-m", "prompt_tuning.cli", "train", *FILES, *tiny_flags, *length]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish = functools.partial(subprocess.run, check=True, timeout=300, capture_output=True)
    finish([*command, f"--gin.MODEL_DIR={whole}"])

    metrics = killed / "metrics.jsonl"
    for step in sorted(random.sample(range(1, 35), 2)):
        with subprocess.Popen([*command, f"--gin.MODEL_DIR={killed}"], stderr=-3) as process:
            while process.poll() is None and f'"step": {step},' not in read(metrics):
                time.sleep(0.005)
            process.kill()
        assert process.returncode == -signal.SIGKILL, f"the run ended before step {step}"
    finish([*command, f"--gin.MODEL_DIR={killed}"])

    assert (killed / "prompt_best.npy").read_bytes() == (whole / "prompt_best.npy").read_bytes()
    metadata = [load_prompt(run / "prompt_best.safetensors")[1] for run in (killed, whole)]
    assert metadata[0] == metadata[1]
    assert rows_without_times(killed) == rows_without_times(whole)


def read(path):
    return path.read_text() if path.exists() else ""


def rows_without_times(folder):
    times = {"seconds", "examples_per_second", "tokens_per_second"}
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in row.items() if name not in times} for row in rows]


@pytest.mark.slow
def test_train_on_many_devices_gives_the_prompt_of_one(tiny_flags, tmp_path):
    """Batches are shared out over devices; the result differs by rounding alone."""
    prompts = []
    for devices in (1, 2):
        environment = {
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        folder = tmp_path / f"devices_{devices}"
        command = [sys.executable, "-m", "prompt_tuning.cli", "train", *FILES, *tiny_flags]
        command += [f"--gin.MODEL_DIR={folder}", "--gin.LEARNING_RATE=0.01"]
        subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True)
        prompts.append(np.load(folder / "prompt_best.npy"))
    np.testing.assert_allclose(*prompts, rtol=1e-4, atol=1e-5)


def test_a_users_own_task(tiny_flags, tmp_path, monkeypatch, checkout):
    """The files and the command of docs/adding_a_task.md, as they stand there."""
    doc = (checkout / "docs" / "adding_a_task.md").read_text().split("```")
    (python,) = [block for block in doc if "register_task(" in block]
    (config,) = [block for block in doc if "import my_task" in block]
    (command,) = [block for block in doc if "prompt-tuning train" in block]
    (tmp_path / "my_task.py").write_text(python.removeprefix("python\n"))
    (tmp_path / "my_task.gin").write_text(config)
    command = command.replace("\\\n", " ").split()
    rows = [{"review": "fine", "label": "good"}, {"review": "dull", "label": "bad"}]
    (tmp_path / "reviews").mkdir()
    for name in ("train", "val"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "reviews" / f"{name}.jsonl").write_text(text)
    monkeypatch.chdir(tmp_path)
    flags = [flag for flag in tiny_flags if not flag.startswith("--gin.DATA_DIR=")]
    main([*command[1:], *flags])
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["task"] == "reviews"
    # The run folder remembers the user's module.
    main(["evaluate", "run"])
