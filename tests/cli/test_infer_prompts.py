"""`prompt-tuning infer --prompts`: each line is answered with the prompt that it names."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata, save_prompt
from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.recipes import counting
from prompt_tuning.recipes.scripts import USER_ERROR, status_of

pytestmark = pytest.mark.usefixtures("compile_once")

LABELS = ["entailment", "not_entailment"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """The files of two prompts of different lengths, one of which tells its task."""
    folder = tmp_path_factory.mktemp("prompts")
    rng = np.random.default_rng(4)
    metadata = PromptMetadata(model="tiny_random", task="superglue_rte")
    told = save_prompt(folder / "rte", rng.normal(size=(3, 16)), metadata)[1]
    untold = folder / "wsc.npy"
    np.save(untold, rng.normal(size=(7, 16)).astype(np.float32))
    return [f"rte={told}", f"wsc={untold}"]


@pytest.fixture
def infer(tiny_settings, prompts, monkeypatch, capsys):
    """Answers lines, and returns the rows; or the error, if that is what is expected."""

    def run(lines, *flags, prompts=prompts, fails=False):
        text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        capsys.readouterr()
        model = ["--gin_file=models/t5_1_1_small.gin", *tiny_settings]
        status = status_of(main, ["infer", *model, *flags, "--prompts", *prompts])
        printed = capsys.readouterr()
        assert status == (USER_ERROR if fails else 0), printed.err
        return printed.err if fails else [json.loads(line) for line in printed.out.splitlines()]

    return run


def test_a_mixture_is_answered_in_order_as_each_prompt_alone(infer, prompts):
    rte = {"prompt": "rte", "premise": "A cat sat.", "hypothesis": "A dog sat."}
    (rendered,) = get_task("superglue_rte").render({**rte, "idx": 0, "label": None}, False)
    wsc = {"prompt": "wsc", "inputs": "A cat sat.", "id": 7}
    lines = [
        rte,
        wsc,
        {"prompt": "rte", "inputs": rendered.inputs, "labels": LABELS},
        {"prompt": "rte", "inputs": rendered.inputs, "labels": []},
    ]
    rows = infer(lines, "--gin.BATCH_SIZE=4")
    predictions = [row.pop("prediction") for row in rows]
    scores = [row.pop("scores", None) for row in rows]
    assert rows == lines
    assert scores[0] == pytest.approx(scores[2]), "the prompt's task makes the text"
    assert scores[0].keys() == set(LABELS), "and ranks its labels"
    assert predictions[2] == max(LABELS, key=scores[2].__getitem__)
    generated = infer(lines[:1], "--gin.predict.method=greedy")[0]
    assert generated["prediction"] == predictions[3] and scores[3] is scores[1] is None
    # A single prompt need not be named.
    (alone,) = infer(["A cat sat.\n"], prompts=prompts[1:])
    assert alone["prediction"] == predictions[1]


@pytest.mark.slow
def test_rows_are_shared_out_among_devices(tiny_settings, prompts):
    lines = "".join(
        json.dumps({"prompt": name, "inputs": text}) + "\n"
        for name in ("rte", "wsc")
        for text in ("A cat sat.", "A dog.", "the bird sees")
    )
    command = [sys.executable, "-m", "prompt_tuning.cli", "infer", *tiny_settings]
    command += ["--gin_file=models/t5_1_1_small.gin", "--prompts", *prompts]
    printed = [
        subprocess.run(
            command,
            input=lines,
            env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
            check=True,
            timeout=300,
            capture_output=True,
            text=True,
        ).stdout
        for devices in (1, 2)
    ]
    assert printed[0].count("prediction") == 6
    assert printed[0] == printed[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A cat sat.\n", "standard input:1: no prompt is named"),
        (
            {"prompt": "rtee", "inputs": "a"},
            "standard input:1: Unknown prompt 'rtee'. Did you",
        ),
        ({"prompt": 3, "inputs": "a"}, "standard input:1: no prompt is named"),
        ({"prompt": "rte", "inputs": 3}, '"inputs" is 3; expected a string'),
        ({"prompt": "wsc", "text": "a"}, 'the file of the prompt "wsc" names no task'),
        ({"prompt": "rte", "premise": "a"}, "no field 'hypothesis'"),
        ({"prompt": "rte", "inputs": "a", "labels": "b"}, "\"labels\" is 'b'; expected a list"),
        ("{broken\n", "standard input:1: not JSON"),
        ('{"prompt": "rte", "inputs": "\\ud800"}\n', r"standard input:1: '\ud800' is half a"),
        ('{"prompt": "rte", "inputs": "a", "labels": ["\\uDFFF"]}\n', r"'\udfff' is half a"),
        ("\udce9t\u00e9\n", r"standard input:1: '\udce9' is half a"),
    ],
)
def test_a_wrong_line_is_told(infer, line, message):
    assert message in infer([line], fails=True)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["rte"], "--prompts has 'rte'; expected NAME=FILE"),
        (["=rte.npy"], "--prompts has '=rte.npy'"),
        (["a=b", "a=c"], "--prompts names 'a' twice: b and c"),
        (["a=none.npy"], "none.npy"),
    ],
)
def test_wrong_prompts_are_told(infer, pairs, message):
    assert message in infer([], prompts=pairs, fails=True)


def test_one_prompt_or_many_but_not_both(infer):
    assert "either --prompt or --prompts" in infer([], "--prompt=a.npy", fails=True)


def test_a_file_is_answered_with_progress(tiny_settings, prompts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(counting, "_SECONDS_BETWEEN_LINES", 0.0)
    asked, output = tmp_path / "q.jsonl", tmp_path / "a.jsonl"
    asked.write_text('{"prompt": "wsc", "inputs": "A cat sat."}\n\n')
    model = ["--gin_file=models/t5_1_1_small.gin", *tiny_settings]
    files = [f"--input={asked}", f"--output={output}", "--prompts", *prompts]
    assert status_of(main, ["infer", *model, *files]) == 0
    assert "Answered: 2 lines" in capsys.readouterr().err
