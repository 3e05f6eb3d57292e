"""docs/serving.md: its tables against the program, and every command and line of code in it run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.serving.limits import Limits

SERVE = "prompt-tuning serve prompts"


@pytest.fixture(scope="module")
def page(checkout) -> str:
    return (checkout / "docs" / "serving.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_flags_and_limits_it_names_are_those_of_the_command(page, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    printed = capsys.readouterr().out
    flags = set(re.findall(r"`(--(?:max|host|warm)\w*)`", page))
    assert flags == {
        flag for flag in re.findall(r"--\w+", printed) if flag[2:6] in ("max_", "host", "warm")
    }
    assert f"than {Limits().labels} labels" in page
    assert f"longer than {Limits().body_seconds:g} seconds" in page
    for number in ("1024", "256"):
        assert number in page and f"({number})" in printed


def test_the_requests_it_names_are_those_of_the_server(page, checkout):
    program = (checkout / "prompt_tuning" / "serving" / "app.py").read_text()
    served = re.findall(r'@app\.(get|post)\("([^"]+)"', program)
    named = re.findall(r"^\| `(GET|POST) (\S+)`", page, re.MULTILINE)
    assert {(method.upper(), path.replace(":path", "")) for method, path in served} == set(named)


@pytest.mark.slow
def test_every_command_of_the_page(page, checkout, tmp_path):
    """In order, as they stand there, but for the installation and the port."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    program = bin_folder / "prompt-tuning"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m prompt_tuning.cli.__main__ "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
    }

    def bash(script: str) -> str:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            check=True,
            timeout=900,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    training, inference, install, serve, requests = blocks(page, "sh")
    bash(training)
    rows = [json.loads(line) for line in bash(inference).splitlines()]
    assert [row["prompt"] for row in rows] == ["rte", "wic", "rte"]
    told = re.search(r"The answers are `(\w+)`, `(\w+)` and `(\w+)`", page)
    assert told and [row["prediction"] for row in rows] == list(told.groups())
    assert rows[2]["prediction"] == max(rows[2]["scores"], key=rows[2]["scores"].__getitem__)
    for name in ("rte", "wic"):
        summary = json.loads((tmp_path / "runs" / name / "summary.json").read_text())
        assert summary["best_step"] > 0, "training shows something"

    (code,) = blocks(page, "python")
    (tmp_path / "page.py").write_text(code)
    answered = bash(f"{shlex.quote(sys.executable)} page.py")
    assert answered.startswith("['entailment', 'False', 'False']")

    assert install.strip() == "pip install '.[serve]'"
    assert serve.startswith(SERVE)
    command = [*shlex.split(serve), "--port=0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "Compiling" in process.stderr.readline()
        line = process.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+); prompts: rte, wic$", line)
        assert found, line
        try:
            answers = [
                bash(command.replace("localhost:8000", f"127.0.0.1:{found[1]}"))
                for command in requests.splitlines()
            ]
        finally:
            process.terminate()
        assert process.wait(60) == 0
    one, many, listed, _, loaded, _, rescanned, health, metrics = answers
    assert json.loads(one)["prediction"] == rows[1]["prediction"]
    both = json.loads(many)["predictions"]
    assert [each["prediction"] for each in both] == ["entailment", "False"]
    assert [each["length"] for each in json.loads(listed)["prompts"]] == [20, 12]
    assert json.loads(loaded)["name"] == "rte_again"
    assert json.loads(rescanned) == {"loaded": [], "removed": ["rte_again"], "refused": {}}
    assert json.loads(health)["status"] == "ok"
    assert 'prompt_tuning_examples_total{prompt="wic"} 2.0' in metrics
    assert Path(tmp_path / "prompts" / "rte_again.safetensors").exists() is False
