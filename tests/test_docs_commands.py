"""Commands in the docs on TinyWorld's models end within minutes."""

import re
import shlex
from pathlib import Path

import pytest

from prompt_tuning.cli import gin_config

PAGES = sorted(path.name for path in (Path(__file__).parents[1] / "docs").glob("*.md"))
MANY = 2000
"""Steps that two CPU cores make in some minutes."""


@pytest.mark.parametrize("page", [*PAGES, "../README.md"])
def test_training_on_tinyworld_has_few_steps(page, checkout):
    text = (checkout / "docs" / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"^ *(?:\$ )?prompt-tuning train .*", text, re.MULTILINE):
        arguments = shlex.split(line)
        files = [value.partition("=")[2] for value in arguments if value.startswith("--gin_file=")]
        if not any("tinyworld" in file and "models/" in file for file in files):
            continue
        texts = [
            path.read_text(encoding="utf-8")
            for file in files
            if (path := gin_config.shipped_configs() / file).is_file()
        ]
        given = "\n".join([*texts, *(value.removeprefix("--gin.") for value in arguments)])
        steps = re.findall(r"^TRAIN_STEPS ?= ?(\d+)$", given, re.MULTILINE)
        assert steps, line
        assert int(steps[-1]) <= MANY, line
