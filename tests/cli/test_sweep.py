"""The sweep command: its list, its populations, going on, failing."""

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from prompt_tuning.cli import sweep, sweep_cost
from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.sweep_cost import Cost, cost_text
from prompt_tuning.cli.sweep_plan import load_sweep, runs_of
from prompt_tuning.errors import UserError
from prompt_tuning.planning.machines import find_machine
from prompt_tuning.sweeps.results import write_table
from prompt_tuning.sweeps.runs import parts_of

SWEEP = """
sweep.files = ['models/tinyworld_tiny.gin', 'prompts/sampled_vocabulary.gin', 'runs/train.gin']
sweep.settings = {
    'TRAIN_STEPS': 2, 'train.eval_every': 2, 'BATCH_SIZE': 8, 'train.tensorboard': False
}
sweep.grid = {
    'gin_file': ['tasks/tinyworld_rte.gin', 'tasks/tinyworld_wic.gin'],
    'PROMPT_LENGTH': [2, 3],
    'SEED': [0],
}
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.gin"
    path.write_text(SWEEP)
    return str(path)


def planned(file, *more):
    with open(file, "a") as stream:
        stream.writelines(f"{line}\n" for line in more)
    sweep = load_sweep(file, "", [])
    return sweep, runs_of(sweep, "")


def test_runs_that_can_be_members_train_together(file):
    sweep, runs = planned(file)
    assert sweep.name == "small"
    names = [run.name.rpartition("-")[0] for run in runs]
    assert names[0] == "tinyworld_rte-prompt_length_2-seed_0"
    assert len({run.name for run in runs}) == 4
    (part,) = parts_of(runs, 16)
    assert part.population[3]["MIXTURE_OR_TASK_NAME"] == "tinyworld_wic"
    assert part.population[3]["PROMPT_LENGTH"] == 3
    # Each task names its labels; a start from sampled vocabulary has no use for them.
    assert all("CLASS_LABELS" not in member for member in part.population)
    assert [len(each.runs) for each in parts_of(runs, 3)] == [3, 1]
    assert len(parts_of(runs, 1)) == 4


def test_other_models_and_batches_train_apart(file):
    _, runs = planned(
        file,
        "sweep.grid = {'BATCH_SIZE': [8, 16], 'SEED': [0, 1],",
        " 'gin_file': ['tasks/tinyworld_rte.gin']}",
    )
    parts = parts_of(runs, 16)
    assert [[run.bindings["BATCH_SIZE"] for run in part.runs] for part in parts] == [
        [8, 8],
        [16, 16],
    ]


def test_the_same_configuration_twice_is_refused(file):
    with pytest.raises(UserError, match="same configuration"):
        planned(file, "sweep.grid = {'gin_file': ['tasks/tinyworld_rte.gin'], 'SEED': [0, 0]}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--index", "9"], "runs 0 to 3"),
        (["--shard", "2/2"], "expected I/N"),
        (["--index", "0", "--shard", "0/2"], "not both"),
        (["--accelerator", "h200"], "requires --plan"),
        (["--plan", "--accelerator", "h201"], "Unknown accelerator 'h201'"),
        (["--gin_file=runs/train.gin"], "sweep.files"),
        (["--gin.sweep.places=0"], "at least 1"),
    ],
)
def test_bad_flags_are_told(file, flags, message):
    with pytest.raises(UserError, match=message):
        main(["sweep", file, *flags])


def test_a_file_that_is_no_sweep(tmp_path):
    (tmp_path / "other.gin").write_text("sweep.name = 'x'\n")
    with pytest.raises(UserError, match="not a sweep"):
        main(["sweep", str(tmp_path / "other.gin")])


def test_the_plan_trains_nothing(file, tmp_path, capsys):
    assert main(["sweep", file, "--plan", "--shard", "1/2"]) == 0
    shown = capsys.readouterr().out
    assert "small: 2 runs, 0 finished; 2 to train in 1 part, 4 steps at most" in shown
    assert "wic-prompt_length_3" in shown and "rte-prompt_length_3" not in shown
    assert not (tmp_path / "runs").exists()


def test_runs_in_a_table_are_left_out(file, tmp_path, capsys):
    _, runs = planned(file)
    write_table([{"run": run.name, "score": 0.5} for run in runs[:3]], tmp_path / "results")
    assert main(["sweep", file, "--plan", "--done", str(tmp_path / "results.parquet")]) == 0
    out = capsys.readouterr().out
    assert "small: 1 run, 0 finished; 1 to train" in out and runs[3].name in out
    with pytest.raises(UserError, match=r"Can't read .*no\.parquet .*results\.parquet of prompt"):
        main(["sweep", file, "--plan", "--done", str(tmp_path / "no.parquet")])


def test_the_plan_tells_hours_of_a_machine(file, capsys):
    assert main(["sweep", file, "--plan", "--accelerator=h200", "--index=0"]) == 0
    printed = capsys.readouterr()
    assert "[1/1] planning tinyworld_rte-prompt_length_2-seed_0" in printed.err
    *_, head, line, total = printed.out.splitlines()
    assert head.split()[:3] == ["model", "prompt", "runs"]
    assert line.split()[:3] == ["tinyworld_tiny", "2", "1"] and line.endswith("yes")
    assert total.endswith("hours of 1 x H200 in total, without evaluations.")


def test_one_plan_for_runs_that_cost_the_same(file, monkeypatch):
    """Seeds and tasks do; prompts of other lengths don't."""

    monkeypatch.setattr(sweep_cost, "_plan", lambda run, *_: {"model": run.name})
    _, runs = planned(
        file, "sweep.settings = {'TASK_FEATURE_LENGTHS': {'inputs': 64, 'targets': 4}}"
    )
    told = []
    found = sweep_cost.costs(runs, find_machine("h200"), "", told.append)
    assert [(each.plan["model"].rpartition("-")[0], each.runs) for each in found] == [
        ("tinyworld_rte-prompt_length_2-seed_0", 2),
        ("tinyworld_rte-prompt_length_3-seed_0", 2),
    ]
    assert len(told) == 2


def test_hours_are_those_of_all_runs():
    plan = {"model": "m", "prompt_length": 5, "seconds": {"step": 0.1}, "hours": 2.0, "fits": True}
    costs = [Cost(3, plan), Cost(1, {**plan, "hours": 1.5, "fits": False})]
    text = cost_text(costs, find_machine("h200"))
    assert "7.5 hours of 1 x H200 in total" in text
    assert "For what doesn't fit, prompt-tuning plan suggests settings that would." in text
    refused = {**plan, "seconds": None, "hours": None, "fits": False}
    *_, line, total = cost_text([*costs, Cost(1, refused)], find_machine("v5e-4")).splitlines()
    assert line.split() == ["m", "5", "1", "no"] and total.startswith("7.5 hours")


class Ended(subprocess.Popen):
    """A process that has ended."""

    _child_created = False

    def __init__(self, status):
        self.status = status

    def wait(self, timeout=None):
        return self.status


def test_sigterm_is_handed_on_and_a_step_is_looked_up(tmp_path):
    """The part of a sweep saves, and the sweep ends as interrupted."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 7, "loss": 1.0}\n')
    assert sweep._last_step(tmp_path) == 7
    assert sweep._last_step(tmp_path / "none") == 0
    program = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(143))\nsignal.pause()"
    process = subprocess.Popen([sys.executable, "-c", program])
    looks = []

    def look():
        looks.append(1)
        if len(looks) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        sweep._wait(process, look)
    assert process.returncode == 143


def test_going_on_and_failing(file, tmp_path, monkeypatch, capsys):
    """Which parts are trained when; the command that trains them is made up here."""
    trained, bad = [], {"PROMPT_LENGTH=2"}

    def train(command, stdout, stderr):
        (folder,) = [part.partition("=")[2] for part in command if "MODEL_DIR" in part]
        trained.append(folder)
        if any(text in part for part in command for text in bad):
            os.write(stdout, b"a line\nprompt-tuning: no memory\n")
            killed = any("tinyworld_wic" in part for part in command)
            return Ended(-9 if killed else 2)
        where = Path(ast.literal_eval(folder))
        where.mkdir(parents=True)
        summary = {"task": "rte", "score": 0.5, "metrics": {"accuracy": 0.5}, "steps": 2}
        (where / "summary.json").write_text(json.dumps(summary))
        (where / "versions.json").write_text(json.dumps({"python": "3", "packages": {}}))
        return Ended(0)

    monkeypatch.setattr(subprocess, "Popen", train)
    flags = ["sweep", file, "--gin.sweep.places=1"]
    assert main([*flags, "--retries", "1"]) == 1
    told = capsys.readouterr().err
    assert "2 of 4 runs have finished, 2 failed" in told
    assert "Failed 2 times: tinyworld_rte-prompt_length_2" in told and "no memory" in told
    assert len(trained) == 6, "two parts once, two parts and their second try"

    trained.clear()
    assert main([*flags, "--retries", "1"]) == 1
    assert not trained, "what is finished or has failed for good is left alone"
    bad.clear()
    assert main([*flags, "--again"]) == 0
    assert len(trained) == 2
    main(["results", "runs/small", "--down", "PROMPT_LENGTH"])
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["2", "0.500"]


@pytest.mark.slow
def test_a_population_of_two_tasks(file, capsys):
    assert main(["sweep", file]) == 0
    main(["results", "runs/small", "--down", "task", "--across", "PROMPT_LENGTH"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["task", "tinyworld_rte", "tinyworld_wic"]
