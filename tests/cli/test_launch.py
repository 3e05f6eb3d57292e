"""The command `launch`: prints, writes or submits."""

import subprocess

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.errors import UserError
from prompt_tuning.launch.arguments import _values

SLURM = ["launch", "slurm", "--nodes", "4", "--name=rte"]
FILES = [
    f"--gin_file={file}.gin"
    for file in ("models/tinyworld_tiny", "tasks/tinyworld_rte", "prompts/class_label")
] + ["--gin_file=runs/train.gin"]
LABELS = "--gin.CLASS_LABELS=['a b', 'c']"
TRAIN = ["--", "train", *FILES, LABELS, "--gin.MODEL_DIR=/runs/x"]


def test_prints_the_job(capsys):
    main([*SLURM, *TRAIN])
    script = capsys.readouterr().out
    assert "#SBATCH --nodes=4\n" in script
    assert "srun --kill-on-bad-exit=1 prompt-tuning train --gin_file=models/tiny" in script


@pytest.mark.parametrize(
    "arguments",
    [
        ["slurm", "--sweep", "SEED=0,1", "--at_once=1"],
        ["tpu", "--tpu=pod"],
        ["jobset", "--image=i", "--tpu=tpu-v5-lite-podslice,4x4,4", "--claim=disk=/runs"],
        ["xpk", "--cluster=c", "--tpu_type=v5litepod-16", "--image=i"],
        ["skypilot", "--accelerators=H100:8", "--mount=/runs=gs://bucket"],
    ],
)
def test_every_engine_writes_a_file(arguments, tmp_path, capsys):
    file = tmp_path / "job"
    main(["launch", *arguments, f"--output={file}", *TRAIN])
    assert f"Wrote {file}; submit it with: " in capsys.readouterr().out
    assert "prompt-tuning" in file.read_text()
    if file.read_text().startswith("#!"):
        subprocess.run(["bash", "-n", file], check=True)


def test_submits_through_the_engines_own_program(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(UserError, match="sbatch is not installed here"):
        main([*SLURM, "--submit", *TRAIN])
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text('#!/bin/bash\necho "Submitted $1"; grep -c srun "$1"; exit "${STATUS:-0}"\n')
    sbatch.chmod(0o755)
    main([*SLURM, "--submit", *TRAIN])
    assert capfd.readouterr().out == "Submitted rte.sbatch.sh\n1\n"
    monkeypatch.setenv("STATUS", "1")
    with pytest.raises(
        UserError, match="sbatch failed with exit status 1 and didn't accept the job"
    ):
        main([*SLURM, "--submit", *TRAIN])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["slurn", *TRAIN], "Unknown engine 'slurn'.* Did you mean 'slurm'"),
        (["slurm"], "There is no command to launch; write it after --"),
        (["slurm", "--", "trian"], "Unknown command 'trian' after --.* Did you mean 'train'"),
        (["slurm", "--sweep=SEED", *TRAIN], "'SEED' is not of the form --sweep MACRO=A,B"),
        (["tpu", *TRAIN], "required: --tpu"),
        (["jobset", "--image=i", "--tpu=v5e", *TRAIN], "--tpu is 'v5e'; expected kind, topology"),
    ],
)
def test_wrong_arguments_are_one_line(argv, message):
    with pytest.raises(UserError, match=message):
        main(["launch", *argv])


@pytest.mark.parametrize(
    ("own", "command", "message"),
    [
        (["--sweep=SEEED=0,1"], [*FILES], "Unknown gin macro 'SEEED'.* Did you mean 'SEED'"),
        (["--sweep=SEED=0,x"], [*FILES], "SEED is 'x'; expected an integer"),
        ([], FILES, "MODEL_DIR is required and not set"),
        ([], [], "Nothing sets"),
        ([], [*FILES, "--gin.MODEL_DIR=s3://b/x"], "paths of s3://"),
        ([], [*FILES[1:], "--gin.MODEL_DIR=/x"], "INITIAL_CHECKPOINT_PATH is used .* not set"),
        ([], [*FILES, "--gin_file=runs/tain.gin"], "No gin file 'runs/tain.gin'"),
        ([], [*FILES, "--gin.MODEL_DIR=/x", "--overwrit"], "Did you mean '--overwrite'"),
    ],
)
def test_s7_the_command_is_checked_before_anything_is_written(own, command, message, tmp_path):
    file = tmp_path / "job.sh"
    with pytest.raises(UserError, match=message):
        main(["launch", "slurm", *own, f"--output={file}", "--", "train", *command])
    assert not file.exists()


def test_s7_a_sweeps_file_is_checked_too(tmp_path, capsys):
    file = tmp_path / "sweep.gin"
    files = [flag.partition("=")[2] for flag in FILES]
    file.write_text(f"sweep.files = {files}\nsweep.grid = {{'SEED': [0, 1]}}\n")
    launch = ["launch", "slurm", "--", "sweep", str(file)]
    main(launch)
    assert "prompt-tuning sweep" in capsys.readouterr().out
    file.write_text(f"sweep.files = {files}\nsweep.grid = {{'SEEED': [0, 1]}}\n")
    with pytest.raises(UserError, match="SEEED"):
        main(launch)


def test_a_command_whose_files_are_elsewhere_can_go_unchecked(tmp_path, capsys):
    elsewhere = ["--", "train", "--gin_file=/only/there.gin"]
    main(["launch", "slurm", "--no_check", *elsewhere])
    assert "/only/there.gin" in capsys.readouterr().out
    main(["launch", "slurm", "--", "evaluate", "/only/there/run"])


def test_values_are_divided_outside_of_brackets_and_quotes():
    assert _values("0,1") == ["0", "1"]
    assert _values("['a', 'b'],{'c': (1, 2)},'d,e',None") == [
        "['a', 'b']",
        "{'c': (1, 2)}",
        "'d,e'",
        "None",
    ]


def test_help_lists_the_engines(capsys):
    with pytest.raises(SystemExit):
        main(["launch"])
    assert "skypilot" in capsys.readouterr().out
