"""Trials of users' own data and of leaderboard files."""

import json
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from prompt_tuning.cli import configurables, gin_config, loading, submit
from prompt_tuning.cli.arguments import Parser
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.errors import UserError
from prompt_tuning.leaderboards.tables import SUPERGLUE

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


def test_trial_36_cells_labels_and_columns(rows, train_flags):
    rows.write_text(
        "premise,text,label,,\na,the dog sat .,yes,,\n,the cat sat .,no,,\na,a dog ran .,YES,,\n"
    )
    load([*train_flags(INPUT_TEMPLATE="{premise} {text}")])
    lines = loading.prepare().findings
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
    assert loading.prepare().trained


def predicted(folder, name, rows):
    """Writes rows as `evaluate --predictions` does."""
    path = folder / f"{name}.jsonl"
    lines = [json.dumps({"task": f"superglue_{name}", **row}) for row in rows]
    path.write_text("\n".join(lines))
    return path


def official_rows(name, real_data):
    """A prediction for each row of the real test file, or of one of that size."""
    entry = SUPERGLUE[name]
    if name in ("axb", "boolq", "cb", "copa", "rte", "wic"):
        task = get_task(f"superglue_{name}")
        for example in task.examples("test", str(real_data / "superglue")):
            yield {"targets": example.targets, **example.metadata, "prediction": task.labels[-1]}
        return
    said = {"record": "Ann", "wsc": "man"}.get(name, next(iter(entry.labels), ""))
    for i in range(entry.rows):
        idx = {"multirc": {"paragraph": 0, "question": 0, "answer": i}, "record": {"query": i}}
        yield {"idx": idx.get(name, str(i)), "candidate": "the man", "prediction": said}


def test_trial_32_the_whole_zip_of_the_official_files(real_data, command, tmp_path):
    files = [predicted(tmp_path, name, official_rows(name, real_data)) for name in SUPERGLUE]
    assert '"idx": "0"' in files[-2].read_text().splitlines()[0], "AX-b has texts for numbers"
    path = tmp_path / "submission.zip"
    result = command("submit", "superglue", "--output", path, "--predictions", *files)
    assert result.status == 0, result.err
    assert "follows the official schema (complete)" in result.out
    assert command("submit", "superglue", "--check", path).out == result.out
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 10
        first = json.loads(archive.read("AX-b.jsonl").splitlines()[0])
    assert first == {"idx": 0, "label": "not_entailment"}


def test_trial_24_a_partial_submission_is_what_there_is(tiny_superglue, command, tmp_path, capfd):
    folder = str(tiny_superglue)
    rte = get_task("superglue_rte")
    assert [*submit._test_tasks("superglue", [rte], folder, True)] == [rte]
    assert "superglue_axb is skipped: Cannot read" in capfd.readouterr().err
    with pytest.raises(UserError, match="AX-b is missing"):
        list(submit._test_tasks("superglue", [rte], folder, False))

    rows = [{"idx": i, "prediction": "entailment"} for i in range(SUPERGLUE["rte"].rows)]
    path = tmp_path / "rte.zip"
    made = ["--partial", "--predictions", predicted(tmp_path, "rte", rows), "--output", path]
    result = command("submit", "superglue", *made)
    assert "(partial: the leaderboard also needs BoolQ.jsonl, CB.jsonl," in result.out
    for flags in ([], ["--partial"]):
        checked = command("submit", "superglue", "--check", path, *flags)
        assert (checked.status, checked.out) == (0, result.out)


def test_show_takes_ones_own_files_and_tasks(rows, command, tmp_path, monkeypatch):
    own = ["--gin.INPUT_TEMPLATE=review: {text}", "--gin.TARGET_TEMPLATE={label}"]
    result = command("show", "--gin_file=tasks/user_files.gin", f"--gin.TRAIN_FILE={rows}", *own)
    assert "inputs  review: the dog is tall ." in result.out

    monkeypatch.chdir(tmp_path)
    (tmp_path / "shown_task.py").write_text(f"""
from pathlib import Path
from prompt_tuning.data.tasks.task import register_task
from prompt_tuning.data.templates import Template
from prompt_tuning.data.user_files import UserFiles, user_task
templates = dict(inputs=Template("{{text}}", "input"), targets=Template("{{label}}", "target"))
files = UserFiles(files={{"train": Path({str(rows)!r})}}, held_out=0.5, **templates)
register_task(user_task(files, name="shown"))
""")
    (tmp_path / "shown_task.gin").write_text("import shown_task\nMIXTURE_OR_TASK_NAME = 'shown'\n")
    missing = command("show", "shown")
    assert missing.status == 2
    assert "For a task of your own, add the gin" in missing.message
    for words in (["shown"], []):
        assert "shown, train" in command("show", *words, "--gin_file=shown_task.gin").out
