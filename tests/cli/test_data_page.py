"""Every command of docs/data.md as it stands there, on tiny data and random weights."""

import dataclasses
import itertools
import json
import re
import shlex
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from prompt_tuning.cli import configurables, gin_config
from prompt_tuning.cli.__main__ import main
from prompt_tuning.leaderboards.tables import LEADERBOARDS
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

TEST_ROWS = 3


@pytest.fixture(scope="module")
def commands(checkout) -> dict[str, list[str]]:
    """The arguments of each command, by its first two words and the file it writes or reads."""
    page = (checkout / "docs" / "data.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = [shlex.split(line)[1:] for line in re.findall(r"^    prompt-tuning .*", page, re.M)]
    named = {" ".join(word for word in argv[:2] if word[0] != "-"): argv for argv in found}
    trained = [argv for argv in found if argv[0] == "train"]
    named["train on TinyWorld"], named["train"], named["train on a new model"] = trained
    named["pretrain"], named["pretrain further"] = (a for a in found if a[0] == "pretrain")
    named["submit runs"] = next(argv for argv in found if "--runs" in argv)
    named["submit predictions"] = next(argv for argv in found if argv[2:3] == ["--predictions"])
    named["submit check"] = next(argv for argv in found if "--check" in argv)
    assert len(found) == len(named) - 1, "a command that no test knows"
    return named


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_superglue, tiny_vocabulary_file, tiny_weights_file):
    """What the page's commands find where they are run."""
    folder = tmp_path_factory.mktemp("page")
    rows = [f"{i},film {i} is {label},{label}" for i in range(30) for label in ("good", "bad")]
    (folder / "reviews.csv").write_text("\n".join(["id,text,label", *rows]))
    (folder / "new.csv").write_text("id,text\nx,film 1 is good\ny,film 2 is bad\n")
    (folder / "wiki.txt").write_text("".join(f"film {i} is good.\n" for i in range(400)))
    shutil.copytree(tiny_superglue, folder / "superglue")
    tests = [json.loads(line) for line in (tiny_superglue / "RTE" / "test.jsonl").open()]
    for name in ("RTE/test", "AX-b/AX-b", "AX-g/AX-g"):
        file = folder / "superglue" / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        plain = [
            {"idx": i, **{key: row[key] for key in ("premise", "hypothesis")}}
            | {"sentence1": row["premise"], "sentence2": row["hypothesis"]}
            for i, row in enumerate(tests[:TEST_ROWS])
        ]
        file.write_text("".join(json.dumps(row) + "\n" for row in plain))
    shutil.copy(tiny_vocabulary_file, folder / "spiece.model")
    (folder / "t5-small-lm-adapt").mkdir()
    shutil.copy(tiny_vocabulary_file, folder / "t5-small-lm-adapt" / "spiece.model")
    shutil.copy(tiny_weights_file, folder / "t5-small-lm-adapt" / "tiny_random.safetensors")
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(autouse=True)
def tiny_test_sets(monkeypatch):
    """The leaderboards' row counts, shrunken to those of the tiny data."""
    for name, entry in LEADERBOARDS["superglue"].items():
        tiny = dataclasses.replace(entry, rows=TEST_ROWS)
        monkeypatch.setitem(LEADERBOARDS["superglue"], name, tiny)


def without(flags, *names):
    return [flag for flag in flags if not flag.startswith(tuple(f"--gin.{n}=" for n in names))]


@pytest.fixture(scope="module")
def reviews(commands, folder, tiny_settings):
    """The page's run on the user's own files, its vocabulary found beside the checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        flags = without(tiny_settings, "VOCABULARY_PATH", "INITIAL_CHECKPOINT_PATH")
        weights = "--gin.INITIAL_CHECKPOINT_PATH=t5-small-lm-adapt/tiny_random.safetensors"
        main([*commands["train"], *flags, weights])
    return folder / "runs" / "reviews"


@pytest.fixture(scope="module")
def rte(folder, tiny_settings, tiny_prompt_file):
    """A run folder of RTE on the tiny SuperGLUE: a configuration and a prompt."""
    names = ("models/t5_1_1_small", "tasks/superglue_rte", "runs/evaluate")
    flags = [*tiny_settings, "--gin.DATA_DIR=superglue"]
    bindings = [tuple(flag.removeprefix("--gin.").split("=", 1)) for flag in flags]
    gin_config.load([f"{name}.gin" for name in names], bindings)
    run = folder / "runs" / "rte"
    run.mkdir(parents=True)
    (run / "config.gin").write_text(gin_config.text())
    shutil.copy(tiny_prompt_file, run / "prompt_best.safetensors")


def test_tasks_and_show(commands, capsys):
    main(commands["tasks"])
    main(commands["show superglue_rte"])
    assert capsys.readouterr().out.count("the encoder reads") == 3
    main(commands["show"])
    out = capsys.readouterr().out
    assert re.search(r"inputs  review: film \d+ is (good|bad)\n  targets \1\n", out)


def test_own_files_are_trained_on_and_answered(reviews, commands, capsys):
    summary = json.loads((reviews / "summary.json").read_text())
    assert (summary["task"], summary["steps"]) == ("reviews", 1)
    assert set(summary["metrics"]) == {"accuracy"}
    assert 'TRAIN_FILE = "reviews.csv"' in (reviews / "config.gin").read_text().replace("'", '"')
    capsys.readouterr()
    main(commands["evaluate runs/reviews"])
    assert json.loads(capsys.readouterr().out)["predictions"] == 2
    rows = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [row["row"]["id"] for row in rows] == ["x", "y"]
    # The column of the template too, the whole input, and no answer.
    assert all(row["inputs"] == f"review: {row['row']['text']}" for row in rows)
    assert not any("targets" in row for row in rows)
    assert all(isinstance(row["prediction"], str) for row in rows)


@pytest.mark.slow
def test_plain_text_makes_a_model_that_takes_a_prompt(commands, folder, tiny_settings, capsys):
    flags = without(tiny_settings, "VOCABULARY_PATH", "INITIAL_CHECKPOINT_PATH")
    sizes = {"embed_dim": 16, "num_heads": 2, "head_dim": 8, "mlp_dim": 32}
    sizes |= {"num_encoder_layers": 1, "num_decoder_layers": 1}
    tiny = [f"--gin.new_model.{name}={size}" for name, size in sizes.items()]
    adamw = ["--gin.train.optimizer=@adamw()", "--gin.adamw.learning_rate=0.01"]
    main([*commands["pretrain"], *flags, *tiny, *adamw])
    main([*commands["pretrain further"], *flags])
    main([*commands["train on a new model"], *flags, "--gin.DATA_DIR=superglue"])
    found = {
        run: json.loads((folder / "runs" / run / "summary.json").read_text())
        for run in ("wiki", "wiki_lm", "wiki_rte")
    }
    assert found["wiki"]["objective"] == "span_corruption" and found["wiki"]["model"] == "wiki"
    assert found["wiki_lm"]["objective"] == "lm_adaptation"
    # A prompt remembers the model as adapted, which it doesn't fit otherwise.
    assert found["wiki_rte"]["model"] == "wiki_lm"
    assert found["wiki_rte"]["frozen_parameters"] == found["wiki"]["trained_parameters"]


def page_block(checkout, first):
    """The indented lines of the page from one that begins so."""
    page = (checkout / "docs" / "data.md").read_text(encoding="utf-8")
    block = page[page.index(f"    {first}") :]
    lines = itertools.takewhile(lambda line: line.startswith("    "), block.splitlines())
    return "\n".join(line[4:] for line in lines) + "\n"


@pytest.fixture
def things(checkout, folder):
    """The table that the page's shell loop writes."""
    loop = page_block(checkout, "(echo text,label").partition("prompt-tuning")[0]
    subprocess.run(["sh", "-c", loop], check=True, cwd=folder)
    return folder / "things.csv"


def test_the_mixture_of_the_page(checkout, things):
    Path("mine.gin").write_text(page_block(checkout, "MIXTURE_OR_TASK_NAME = @mixture()"))
    gin_config.load(
        ["runs/train.gin", "models/tinyworld_tiny.gin", "mine.gin"], [("MODEL_DIR", "x")]
    )
    data = configurables.data()
    assert data.rates == (3, 1)
    assert [task.labels for task in data.tasks] == [("bad", "good"), ("garment", "tool")]


@pytest.mark.slow
def test_the_tinyworld_command_reaches_what_the_page_says(commands, things):
    main(commands["train on TinyWorld"])
    assert json.loads(Path("runs/things/summary.json").read_text())["score"] == 1


def test_withheld_labels_are_not_scored(reviews, capsys):
    assert status_of(main, ["evaluate", str(reviews), "--split=test"]) == USER_ERROR
    told = capsys.readouterr().err.splitlines()[-1]
    assert "The labels of reviews's test split are withheld" in told
    assert "--predictions FILE" in told


def test_free_text_has_no_labels_to_start_from(commands, tiny_flags, capsys):
    free = [*commands["train"], *without(tiny_flags, "TASK_FEATURE_LENGTHS")]
    assert status_of(main, [*free, "--gin.user_files.labels=[]"]) == USER_ERROR
    told = capsys.readouterr().err.splitlines()[-1]
    assert "The answers of reviews are free text" in told and "sampled_vocabulary.gin" in told


def test_a_template_of_an_unknown_column(commands, tiny_flags, capsys):
    argv = [*commands["train"], *tiny_flags, "--gin.INPUT_TEMPLATE={txt}"]
    assert status_of(main, argv) == USER_ERROR
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("prompt-tuning: reviews.csv:2: no column 'txt', which the input")
    assert "Did you mean 'text'?" in lines[-1]


def test_predictions_become_a_submission(rte, commands, capsys):
    main(commands["evaluate runs/rte"])
    row = {"idx": 0, "targets": "<unk>", "candidate": "man", "prediction": ""}
    for name, entry in LEADERBOARDS["superglue"].items():
        if name == "rte":
            continue
        words = [*entry.labels, "man"]
        rows = [
            row | {"task": f"superglue_{name}", "idx": index_of(entry, i), "prediction": words[0]}
            for i in range(TEST_ROWS)
        ]
        with open(f"{name}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in rows)
    main(commands["submit predictions"])
    capsys.readouterr()
    main(commands["submit check"])
    out = capsys.readouterr().out
    assert "submission.zip follows the official schema (complete)" in out
    assert len(out.splitlines()) == 11


def index_of(entry, i):
    whole = {"paragraph": 0, "question": 0, "answer": i, "passage": 0, "query": i}
    return whole if entry.kind in ("multirc", "record") else i


def test_a_run_answers_its_tests_and_the_diagnostics(rte, commands, capsys):
    main(commands["submit runs"])
    out = capsys.readouterr().out
    assert "rte.zip follows the official schema (partial" in out
    with zipfile.ZipFile("rte.zip") as archive:
        assert sorted(archive.namelist()) == ["AX-b.jsonl", "AX-g.jsonl", "RTE.jsonl"]
        rows = [json.loads(line) for line in archive.read("AX-g.jsonl").splitlines()]
    assert [row["idx"] for row in rows] == [0, 1, 2]
    assert {row["label"] for row in rows} <= {"entailment", "not_entailment"}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["superglue"], "No zip to write: add --output"),
        (["superglue", "--output=a.zip"], "Nothing to submit: give --predictions"),
        (["squad", "--output=a.zip"], "argument benchmark: invalid choice: 'squad'"),
        (["glue", "--output=a.zip", "--predictions", "no.jsonl"], "no.jsonl is missing"),
        (["glue", "--runs", "no", "--output=a.zip"], "no is not a run folder"),
    ],
)
def test_what_submit_refuses(argv, told, capsys):
    assert status_of(main, ["submit", *argv]) == USER_ERROR
    error = capsys.readouterr().err.casefold()
    assert told.casefold() in error and error.count("\n") == 1
