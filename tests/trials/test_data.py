"""Trials of users' own data and of leaderboard files."""

import pyarrow
import pyarrow.parquet
import pytest

from prompt_tuning.cli import configurables, gin_config, session
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.errors import UserError

TEXTS = ["a dog ran .", "a cat ran .", "the dog sat .", "the cat sat ."]


def load(flags):
    """Reads a configuration from flags, as commands do."""
    args = Parser("train", "").parse([*flags, "--gin.MODEL_DIR=run"])
    gin_config.load(args.gin_file, args.gin_bindings)


@pytest.fixture
def user_data(train_flags):
    """Returns the data of a configuration, without the model."""

    def data(**settings):
        load(train_flags(**settings))
        return configurables.data()

    return data


def answers(data, split="train"):
    return [example.targets for example in data.tasks[0].examples(split)]


def test_trial_10_an_unk_label_is_a_label(rows, user_data, tmp_path):
    validation = tmp_path / "v.csv"
    validation.write_text(f"text,label\n{TEXTS[0]},yes\n{TEXTS[1]},<unk>\n")
    data = user_data(VALIDATION_FILE=validation)
    with pytest.raises(UserError, match="v.csv:3: label '<unk>' is not one of no, yes"):
        answers(data, "validation")
    # Of free text it is scored like any other answer.
    task = user_data(VALIDATION_FILE=validation, user_files__labels=[]).tasks[0]
    examples = [
        {"targets": example.targets, **example.scoring_metadata}
        for example in task.examples("validation")
    ]
    assert task.evaluate(examples, ["yes", "<unk>"])["rouge1"] == 1


def test_trial_20_parquet_numbers_words_and_several_files(rows, user_data, tmp_path):
    parquet = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS, "label": [1, 0, 1, 0]}), parquet)
    words = {0: "no", 1: "yes"}
    data = user_data(TRAIN_FILE=parquet, user_files__label_words=words)
    assert data.tasks[0].labels == ("no", "yes")
    assert answers(data) == ["yes", "no", "yes", "no"]
    both = user_data(TRAIN_FILE=[str(rows), str(rows)])
    assert len(answers(both)) == 12


def test_trial_20_pearson(rows, user_data):
    rows.write_text("text,label\n" + "".join(f"{text},{i}\n" for i, text in enumerate(TEXTS)))
    data = user_data(user_files__metric="pearson")
    metadata = [{"targets": target} for target in answers(data)]
    assert data.tasks[0].evaluate(metadata, ["3", "2", "1", "0"]) == {"pearson": pytest.approx(-1)}


def test_trial_20_a_mixture_with_rates(rows, tmp_path):
    config = tmp_path / "mixture.gin"
    config.write_text(
        f"""
        MIXTURE_OR_TASK_NAME = @mixture()
        TASK_FEATURE_LENGTHS = {{'inputs': 16, 'targets': 4}}
        mixture.tasks = [@first/user_files(), @second/user_files()]
        mixture.rates = [3, 1]
        first/user_files.train_file = {str(rows)!r}
        second/user_files.train_file = {str(rows)!r}
        second/user_files.name = 'second'
        user_files.validation_file = {str(rows)!r}
        user_files.input_template = '{{text}}'
        user_files.target_template = '{{label}}'
    """.replace("        ", "")
    )
    load(
        [
            "--gin_file=runs/train.gin",
            "--gin_file=models/tinyworld_tiny.gin",
            f"--gin_file={config}",
        ]
    )
    data = configurables.data()
    assert [task.name for task in data.tasks] == ["r", "second"]
    assert data.rates == (3, 1)


def test_trial_36_cells_labels_and_columns(rows, train_flags, capsys):
    rows.write_text(
        "premise,text,label,,\na,the dog sat .,yes,,\n,the cat sat .,no,,\na,a dog ran .,YES,,\n"
    )
    load([*train_flags(INPUT_TEMPLATE="{premise} {text}")])
    session.prepare()
    lines = capsys.readouterr().err.splitlines()
    assert "Warning: The column 'premise' is empty in 1 of 3 training rows." in lines
    (alike,) = (line for line in lines if "differ only in case" in line)
    assert alike.startswith("Warning: The labels 'YES' and 'yes' differ")
    assert any("3 training examples" in line and "YES (1)" in line for line in lines)


@pytest.mark.parametrize(
    ("setting", "labels"), [("yes,no", ("yes", "no")), ("[0, 1]", ("0", "1")), ("yes", ("yes",))]
)
def test_labels_are_words_however_they_are_given(rows, user_data, setting, labels):
    assert user_data(user_files__labels=setting).tasks[0].labels == labels


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--gin.user_files.labels=5"], "user_files.labels is 5; expected a list of words"),
        (["--gin.user_files.label_words=[1]"], "label_words is [1]; expected a word for each"),
        (["--gin.user_files.metric=multilabel"], "Did you mean 'multi_label'?"),
        (["--gin_file=prompts/from_string.gin", "--gin.PROMPT_TEXT=5"], "PROMPT_TEXT is 5; expec"),
        (["--gin_file=prompts/from_string.gin", "--gin.PROMPT_TEXT=True"], "PROMPT_TEXT is True"),
    ],
)
def test_settings_of_a_wrong_kind_are_one_line(rows, train_flags, command, tmp_path, flags, told):
    result = command("train", *train_flags(), *flags, f"--gin.MODEL_DIR={tmp_path / 'run'}")
    assert result.status == 2
    assert told in result.message


def test_class_labels_may_be_numbers(rows, train_flags, capsys):
    flags = ["--gin_file=prompts/class_label.gin", "--gin.CLASS_LABELS=[1, 2]"]
    load([*train_flags(), *flags])
    assert session.prepare().trained
