import pytest

from prompt_tuning.cli.arguments import Parser
from prompt_tuning.cli.macros import MACROS
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


def test_help_names_every_macro(capsys):
    with pytest.raises(SystemExit) as done:
        Parser("train", "Trains.").parse(["--help"])
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in MACROS)
