"""Every shipped gin file: what its head says, and a shrunken run of the command in it."""

import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import jax
import pytest

from prompt_tuning.checkpoints.adapters.adapter_files import write_adapter
from prompt_tuning.checkpoints.adapters.prompt_files import PromptMetadata
from prompt_tuning.cli import gin_config
from prompt_tuning.cli.__main__ import main
from prompt_tuning.methods.multitask import MultitaskPrompt
from prompt_tuning.models.config import get_config
from prompt_tuning.models.initialization import abstract_params
from prompt_tuning.models.parameters import count_parameters

pytestmark = pytest.mark.usefixtures("compile_once")

CONFIGS = gin_config.shipped_configs()
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.gin"))
# Models differ in sizes and places, which `tests/models` and `tests/checkpoints` test; these tasks
# from others in their columns and words alone, which `tests/data` reads; int8 from nf4 in what
# `tests/models` tests.
ALIKE = re.compile(
    r"models/(?!t5_1_1_lm100k_small\.|tinyworld_small)"
    r"|tasks/(glue_(ax|cola|mnli|mrpc|qnli|qqp\.|rte|sst2|wnli)|cnn|superglue_and|tinyworld_[b-z])"
    r"|tasks/(superglue_(ax|boolq|copa|wic)|xsum|tinyworld\.)"
    r"|quantization/int8|runs/(lm_adapt|train_released_code|tune)"
    # Costly to compile; `tests/methods` trains a step of each.
    r"|methods/(?!soft_prompt\.|soft_prompt_placement|lora)|prompts/combined"
)
COMMANDS = [
    pytest.param(name, marks=pytest.mark.slow if ALIKE.match(name) else ()) for name in FILES
]
FIELDS = ("command", "hardware", "time", "expected")


def head(name: str) -> str:
    """The comment that a file begins with, without its number signs."""
    lines = (CONFIGS / name).read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#"))
    return "\n".join(comment)


def command(name: str) -> list[str]:
    """The words of the command in a file's head."""
    found = re.search(r"command:((?:.*\\\n)*.*)", head(name))
    assert found, f"{name} begins with no command"
    return shlex.split(found[1].replace("\\\n", " "))


def test_there_are_configs():
    assert "runs/train.gin" in FILES


@pytest.mark.parametrize("name", FILES)
def test_head_tells_command_hardware_time_and_expectation(name):
    for field in FIELDS:
        assert re.search(rf"^ {field}: +\S", head(name), re.MULTILINE), f"no '{field}:' in {name}"


@pytest.mark.parametrize("name", [n for n in FILES if re.match("models/(?!tinyworld)", n)])
def test_a_model_s_architecture_has_the_parameters_that_the_head_tells(name):
    text = head(name)
    lines = (CONFIGS / name).read_text()
    while include := re.search(r"^include '(.*)'", lines, re.MULTILINE):
        lines = (CONFIGS / include[1]).read_text()
    (architecture,) = re.findall(r"^frozen_model.architecture = '(\w+)'$", lines, re.MULTILINE)
    count = count_parameters(abstract_params(get_config(architecture)))
    told = re.search(r"([\d.]+)([MB]) parameters", text)
    if told:
        unit = {"M": 1e6, "B": 1e9}[told[2]]
        assert float(told[1]) == round(count / unit, len(told[1].partition(".")[2]))
    if weights := re.search(r"bfloat16 weights: ([\d.]+) GB", text):
        assert float(weights[1]) == round(2 * count / 1e9, 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_makes_a_shrunken_step(
    name, tiny_flags, tiny_prompt_file, tiny_weights_file, tmp_path, monkeypatch, capsys
):
    program, *argv = command(name)
    argv = [each.replace("SOURCE_MODEL=...", f"SOURCE_MODEL={tiny_weights_file}") for each in argv]
    assert program == "prompt-tuning"
    monkeypatch.setattr(sys, "stdin", io.StringIO("hypothesis: a premise: b\n"))
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"film {i},{label}\n" for i in range(20) for label in ("good", "bad"))
    Path("reviews.csv").write_text(f"text,label\n{rows}")
    shutil.copy(tiny_prompt_file, "rte.npy")
    multitask = MultitaskPrompt(length=3, embed_dim=16, tasks=2)
    numbers = multitask.init(jax.random.key(0), {})
    Path("runs/multitask").mkdir(parents=True)
    adapter = Path("runs/multitask/adapter_best.safetensors")
    write_adapter(adapter, multitask, numbers, PromptMetadata())
    Path("corpus.txt").write_text("".join(f"The film {i} is good.\n" for i in range(4000)))
    status = main([*argv, *tiny_flags])
    printed = capsys.readouterr()
    assert status == 0
    if argv[0] == "plan":  # by a process of its own
        return

    config = gin_config.text()
    for line in (CONFIGS / name).read_text().splitlines():
        if setting := re.match(r"[a-z]\w*\.\w+ =", line):
            assert setting[0] in config, f"the command in {name} leaves out {setting[0]}"
    if argv[0] == "pretrain":
        summary = json.loads(Path("run/summary.json").read_text())
        assert summary["steps"] == 1 and summary["frozen_parameters"] == 0
        assert Path("run/weights.safetensors").is_file()
    elif argv[0] in ("train", "quickstart"):
        summary = json.loads(Path("run/summary.json").read_text())
        assert summary["steps"] == 1
        if not re.search("methods/(?!soft_prompt)", " ".join([name, *argv])):
            assert summary["trained_parameters"] == 3 * 16
        assert 0 <= summary["score"] <= 1
    elif argv[0] == "evaluate":
        assert 0 <= json.loads(printed.out)["score"] <= 1
    elif argv[0] == "show":
        assert printed.out.count("the encoder reads") == 3
    else:
        assert isinstance(json.loads(printed.out)["prediction"], str)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["methods/lora.gin"])
def test_a_whole_command_reaches_the_score_of_its_experiment(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command(name)[1:]) == 0
    (summary,) = Path("runs").glob("*/summary.json")
    found = json.loads(summary.read_text())
    assert found["steps"] == 200
    assert found["score"] > 0.95
