import re
import shlex

import pytest

from prompt_tuning.cli import gin_config
from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.command_settings import SETTINGS
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError


def test_reads_t5x_flags_in_order():
    parsed = Parser("train", "Trains.").parse(
        ["--gin_file=a.gin", "--gin.MODEL_DIR=/tmp/x=y", "--gin_file", "b.gin"]
        + ["--gin.f.rate", "0.3", "--gin_search_paths=c,d"]
    )
    assert parsed.gin_file == ["a.gin", "b.gin"]
    assert parsed.gin_bindings == [("MODEL_DIR", "/tmp/x=y"), ("f.rate", "0.3")]
    assert parsed.gin_search_paths == "c,d"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--gin_fil=a.gin"], "Unknown argument '--gin_fil=a.gin'. Did you mean '--gin_file'"),
        (["--gin.MODEL_DIR"], "--gin.MODEL_DIR has no value"),
        (["--gin_file"], "Argument --gin_file: expected one argument"),
        (["stray"], "Unknown argument 'stray'"),
    ],
)
def test_wrong_arguments_are_one_line(argv, message):
    with pytest.raises(UserError) as error:
        Parser("train", "Trains.").parse(argv)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("command", "there", "absent"),
    [
        ("train", ["TRAIN_STEPS", "POPULATION", "train.patience"], ["CORPUS", "OBJECTIVE"]),
        ("serve", ["BATCH_SIZE", "predict.method"], ["CORPUS", "TRAIN_STEPS", "TUNE"]),
        ("neighbors", ["VOCABULARY_PATH"], ["TRAIN_FILE", "LEARNING_RATE", "FSDP"]),
        ("pretrain", ["CORPUS", "new_model.architecture"], ["PROMPT_LENGTH", "TRAIN_FILE"]),
    ],
)
def test_help_names_what_the_command_reads(command, there, absent, capsys):
    with pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    named = set(re.findall(r"^  ([\w.]+)  ", printed, re.MULTILINE))
    assert set(there) <= named
    assert not set(absent) & named
    assert f"\n  prompt-tuning {command} " in printed


@pytest.mark.parametrize("command", SETTINGS)
def test_the_example_of_each_help_is_a_command(command, checkout):
    arguments = shlex.split(SETTINGS[command].example.replace("\\\n", " "))
    args = parse(command, arguments)
    for file in args.gin_file:
        assert (gin_config.shipped_configs() / file).is_file()
    if command == "sweep":
        assert (checkout / args.file).is_file()


@pytest.mark.parametrize("flag", ["--LEARNING_RATE=0.1", "--learning-rate=0.1"])
def test_a_macro_without_gin_is_hinted_at(flag):
    with pytest.raises(UserError, match="Did you mean '--gin.LEARNING_RATE=0.1'"):
        Parser("train", "").parse([flag])
