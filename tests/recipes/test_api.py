"""Training from Python: the same prompt as the command's, from names, rows and frames."""

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import optax
import pytest

import prompt_tuning as pt
from prompt_tuning.cli.__main__ import main
from prompt_tuning.recipes import options, rows
from prompt_tuning.recipes.choices import settings_of
from prompt_tuning.recipes.gin_text import Reference
from prompt_tuning.recipes.scripts import status_of

STEPS = 2
FEW = {"data.max_eval_examples": 32}
ROWS = [{"text": f"film {i} is {label}", "label": label} for i in range(9) for label in "ab"]
TEMPLATES = {"inputs": "review: {text}", "targets": "{label}"}


@pytest.fixture(scope="module")
def trained(checkout, tmp_path_factory):
    """What the example trains, which has the quickstart's settings."""
    example = runpy.run_path(str(checkout / "examples" / "train_prompt.py"))
    folder = tmp_path_factory.mktemp("api") / "run"
    return example["main"](str(folder), steps=STEPS, settings=FEW)


def test_the_command_with_the_same_settings_trains_the_same_prompt(trained, tmp_path, capsys):
    changes = {"TRAIN_STEPS": STEPS, "MODEL_DIR": tmp_path / "run", **FEW}
    argv = [f"--gin.{name}={value}" for name, value in changes.items()]
    assert status_of(main, ["train", "--gin_file=quickstart.gin", *argv]) == 0
    for name in ("prompt_best.npy", "prompt_best.safetensors"):
        assert (trained.folder / name).read_bytes() == (tmp_path / "run" / name).read_bytes()

    # The commands' folders are runs too.
    found = pt.load_run(tmp_path / "run", trained.base)
    assert (found.score, found.best_step) == (trained.score, trained.best_step)
    text = ["rte hypothesis: a dog ran . premise: a dog ran ."]
    assert found.predict(text) == trained.predict(text)


def test_the_commands_work_on_the_folder(trained, capsys):
    assert status_of(main, ["evaluate", str(trained.folder)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["score"] == trained.score
    assert "the same." in err


def test_a_finished_run_is_its_own_again_and_another_one_is_refused(trained):
    base = trained.base
    arguments = {"folder": trained.folder, "steps": STEPS, "eval_every": 2, "settings": FEW}
    method = pt.soft_prompt(length=20, initializer=pt.sampled_vocabulary())
    again = pt.train(base, method, "tinyworld_rte", **arguments)
    np.testing.assert_array_equal(again.prompt, trained.prompt)
    assert again.prompt.shape == (20, base.config.embed_dim)
    with pytest.raises(pt.UserError, match="SEED is 0 there, 1 now"):
        pt.train(base, method, "tinyworld_rte", seed=1, **arguments)
    longer = pt.soft_prompt(length=21, initializer=pt.sampled_vocabulary())
    with pytest.raises(pt.UserError, match="soft_prompt.length is 20 there, 21 now"):
        pt.train(base, longer, "tinyworld_rte", **arguments)


def test_neighbors_and_votes(trained):
    assert [len(each) for each in trained.neighbors(k=3)] == [3] * 20
    with pytest.raises(pt.UserError, match="at least two runs"):
        pt.ensemble([trained])


def test_anything_trained_is_scored_on_any_task(trained, tmp_path):
    base, few = trained.base, {"settings": FEW, "quiet": True}
    for given in (trained, trained.folder, trained.adapter, trained.prompt):
        assert pt.evaluate(base, given, "tinyworld_rte", **few).score == trained.score
    other = pt.evaluate(base, trained, "tinyworld_wic", **few)
    assert len(other.predictions) == 32
    alone = pt.evaluate(base, None, "tinyworld_wic", **few)
    assert alone.predictions != other.predictions
    with pytest.raises(pt.UserError, match=r"has the shape \[2, 3\]; expected \[length, 96\]"):
        pt.evaluate(base, np.zeros((2, 3)), "tinyworld_wic", **few)


def test_runs_train_together_as_the_commands_do(tmp_path, capsys):
    base = pt.load("tinyworld_tiny")
    method = pt.soft_prompt(length=3, initializer=pt.sampled_vocabulary())
    settings = {**FEW, "train.report_split": "test"}
    given = {"steps": 2, "eval_every": 1, "settings": settings, "quiet": True}

    def train(**changes):
        return pt.train_many(
            base, method, "tinyworld_rte", folder=tmp_path / "all", **{**given, **changes}
        )

    short = pt.soft_prompt(length=2, initializer=pt.class_label(["he", "she"]))
    members = {"seed_1": {"seed": 1}, "wsc": {"task": "tinyworld_wsc", "method": short}}
    runs = train(members=members)
    assert runs["wsc"].prompt.shape[0] == 2
    test = runs["seed_1"].evaluate("test", quiet=True)
    report = {"split": "test", "score": test.score, "metrics": dict(test.metrics)}
    assert runs["seed_1"].summary["report"] == report
    assert capsys.readouterr() == ("", "")
    alone = pt.train(base, method, "tinyworld_rte", folder=tmp_path / "alone", seed=1, **given)
    np.testing.assert_allclose(runs["seed_1"].prompt, alone.prompt, rtol=1e-5, atol=1e-6)
    assert runs["seed_1"].folder == tmp_path / "all" / "members" / "seed_1"
    best = json.loads((tmp_path / "all" / "summary.json").read_text())
    assert best["best"] in members and len(best["members"]) == 2
    assert pt.load_run(tmp_path / "all", base).score == runs[best["best"]].score
    with pytest.raises(pt.UserError, match="has the task tinyworld_wsc"):
        pt.ensemble(list(runs.values()))

    again = train(members=members)
    np.testing.assert_array_equal(again["wsc"].prompt, runs["wsc"].prompt)
    with pytest.raises(pt.UserError, match="data.batch_size is 8 for the member b and 32 for a"):
        train(members={"a": {}, "b": {"batch_size": 8}})
    with pytest.raises(TypeError, match="no argument 'batchsize'"):
        train(members=members, batchsize=8)


@pytest.mark.slow
def test_rows_in_memory_are_kept_in_the_folder(tmp_path):
    base = pt.load("tinyworld_tiny")
    folder = tmp_path / "reviews"
    given = {
        "folder": folder,
        "validation": ROWS[:4],
        "steps": 1,
        "batch_size": 4,
        "predict": "rank",
    }
    given |= TEMPLATES
    ia3 = pt.ia3()
    run = pt.train(base, ia3, ROWS, optimizer=pt.adamw(pt.linear_warmup(0.01, 5)), **given)
    lines = (folder / "rows" / "train.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == ROWS
    assert run.data.tasks[0].labels == ("a", "b")
    answers = pt.load_run(folder, base).predict([{"text": "film 3 is a"}, "review: film 1 is b"])
    assert answers == run.predict(["review: film 3 is a", {"text": "film 1 is b"}])
    assert set(answers) <= {"a", "b"}
    with pytest.raises(pt.UserError, match="contains other rows"):
        pt.train(base, ia3, ROWS[1:], **given)
    with pytest.raises(pt.UserError, match="has no prompt before the input"):
        _ = run.prompt


@pytest.mark.slow
def test_the_code_of_the_page_runs(checkout, tmp_path, monkeypatch):
    page = (checkout / "docs" / "api.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text(
        "text,label\n" + "".join(f"a nice film {i},good\na sad film {i},bad\n" for i in range(30))
    )
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) > 5
    for block in blocks:
        exec(re.sub(r"steps=\d+", "steps=1", block), names)


class Frame:
    """As pandas writes a frame."""

    def to_json(self, *, orient, lines, force_ascii):
        assert (orient, lines, force_ascii) == ("records", True, False)
        return '{"text":"a","label":null}\n'


def test_a_frame_is_rows():
    assert rows._as_lines(Frame()) == '{"text":"a","label":null}\n'


def given_task(task, folder, **changes):
    rest = {"validation": None, "test": None, "held_out": 0.1, "labels": None, "metric": None}
    arguments = {**rest, "inputs": None, "targets": None, "overwrite": False, **changes}
    return rows.given_task(task, folder, **arguments)


def test_rows_need_templates_and_values_that_json_has(tmp_path):
    with pytest.raises(pt.UserError, match="the rows needs templates to become text"):
        given_task(ROWS, tmp_path)
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(pt.UserError, match="give both"):
        given_task(str(tmp_path / "a.csv"), tmp_path)
    for bad in ({"text": float("nan")}, {"text": object()}):
        with pytest.raises(pt.UserError, match="^Row 2 can't be written as JSON"):
            given_task([ROWS[0], bad], tmp_path, **TEMPLATES)
    assert given_task("tinyworld_rte", tmp_path) == "tinyworld_rte"


def test_a_choice_is_recorded_under_gins_names():
    chosen = pt.soft_prompt(5, initializer=pt.class_label(["a"]))
    assert settings_of("train.method", chosen) == {
        "train.method": Reference("@soft_prompt"),
        "soft_prompt.length": 5,
        "soft_prompt.initializer": Reference("@class_label"),
        "class_label.labels": ["a"],
        "class_label.num_pieces": 5000,
        "soft_prompt.placement": "before",
        "soft_prompt.attention": ("input->prompt", "prompt->input", "prompt->prompt"),
    }
    rate = pt.linear_warmup(0.1, 3)
    assert settings_of("train.optimizer", pt.adamw(rate))["linear_warmup.warmup_steps"] == 3
    other = optax.sgd(0.1)
    assert settings_of("train.optimizer", other) == {"train.optimizer": other}
    with pytest.raises(TypeError, match="length"):
        pt.soft_prompt(initializer=pt.sampled_vocabulary())  # pyright: ignore


def test_an_unknown_setting_is_named():
    with pytest.raises(pt.UserError, match=r"Unknown setting 'train.accumulation'.*Did you mean"):
        options.check_names({"train.accumulation": 2})


def test_the_public_names_are_one_list_and_cheap_to_import():
    source = Path(pt.__file__).read_text()
    imported = {
        alias.name: node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    of = {name: f"prompt_tuning.{module}" for name, module in pt._MODULE_OF.items()}
    assert {name: module for name, module in imported.items() if name not in ("Any",)} == {
        **of,
        "TYPE_CHECKING": "typing",
    }
    assert pt.__all__ == sorted(of)
    for name in pt.__all__:
        assert getattr(pt, name).__doc__, name
    program = "import sys, prompt_tuning; assert not {'jax', 'gin', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
