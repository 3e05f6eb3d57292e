"""docs/sweeps.md: its sweep is one, and its commands are this program's."""

import re
import shlex
import textwrap

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.cli.sweep_plan import load_sweep, runs_of
from prompt_tuning.errors import UserError
from prompt_tuning.sweeps.runs import parts_of


@pytest.fixture(scope="module")
def page(checkout) -> str:
    return (checkout / "docs" / "sweeps.md").read_text(encoding="utf-8")


def test_the_example_is_a_sweep(page, tmp_path):
    block = re.search(r"^    # lengths.gin\n(?:    .*\n)+", page, re.MULTILINE)
    assert block
    file = tmp_path / "lengths.gin"
    file.write_text(textwrap.dedent(block[0]))
    sweep = load_sweep(str(file), "", [])
    runs = runs_of(sweep, "")
    assert (sweep.name, len(runs)) == ("lengths", 18)
    assert [len(part.runs) for part in parts_of(runs, sweep.places)] == [16, 2]


def test_the_commands_are_understood(page, tmp_path, monkeypatch):
    """Without the file, each says that it isn't there, which it says after reading its flags."""
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    prompt-tuning (.*)$", page, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        with pytest.raises(UserError, match=r"No gin file 'lengths.gin'|no finished run"):
            main(shlex.split(command))
