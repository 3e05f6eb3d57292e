"""The commands and designs of docs/analysis.md and docs/prompt_design.md, on tiny weights."""

import glob
import json
import re
import shlex
from pathlib import Path

import pytest

from prompt_tuning.cli.__main__ import main
from prompt_tuning.data.designs import read_designs

pytestmark = pytest.mark.usefixtures("compile_once")


def commands(page: str) -> list[list[str]]:
    lines = re.findall(r"^    prompt-tuning .*", page.replace("\\\n", " "), re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize("name", ["analysis", "prompt_design"])
def test_commands_have_the_flags_and_files_that_are_there(name, checkout, capsys):
    page = (checkout / "docs" / f"{name}.md").read_text(encoding="utf-8")
    helps = ""
    for command, *argv in commands(page):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        printed = capsys.readouterr().out
        flags = {word.partition("=")[0] for word in argv if word.startswith("--")}
        macros = {flag for flag in flags if flag.startswith("--gin.")}
        assert all(f"{flag} " in printed for flag in flags - macros)
        assert all(f"  {macro.removeprefix('--gin.')} " in printed for macro in macros)
        files = [word.partition("=")[2] for word in argv if word.startswith("--gin_file=")]
        assert all((checkout / "configs" / file).is_file() for file in files)
        helps += printed
    named = re.findall(r"`(--[a-z]\w+)", page)
    assert named and all(f"{flag} " in helps for flag in named if flag != "--gin")


def expanded(argv: list[str]) -> list[str]:
    """What a shell makes of the stars."""
    return [path for word in argv for path in (sorted(glob.glob(word)) if "*" in word else [word])]


@pytest.mark.slow
def test_commands_on_prompts(checkout, tiny_settings, tmp_path, monkeypatch, capsys):
    page = (checkout / "docs" / "analysis.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = [argv[0] for argv in commands(page)]
    assert names == ["train", "train", "ensemble", "neighbors", "neighbors", "compare", "report"]
    printed = {}
    for argv in commands(page):
        # What the runs don't remember; the last mention of a setting counts.
        settings = [] if argv[0] == "compare" else tiny_settings
        capsys.readouterr()
        assert main([*expanded(argv), *settings]) == 0
        printed[argv[0]] = capsys.readouterr().out
    found = json.loads(printed["ensemble"].splitlines()[-1])
    assert len(found["prompts"]) == 5 and found["split"] == "test"
    assert {path.name for path in Path("reports/rte").glob("*.csv")} == set(
        re.findall(r"^\| `(\w+\.csv)`", page, re.MULTILINE)
    )
    assert len(Path("reports/compared/similarity.csv").read_text().splitlines()) == 1 + 5 + 3
    modules = re.findall(r"`(\w+\.py)`", page)
    assert modules and all((checkout / "prompt_tuning" / "analysis" / m).is_file() for m in modules)


@pytest.mark.slow
def test_commands_on_designs(checkout, tiny_settings, tmp_path, capsys):
    page = (checkout / "docs" / "prompt_design.md").read_text(encoding="utf-8")
    design, search = commands(page)
    for argv in (design, search):
        capsys.readouterr()
        assert main([*argv, *tiny_settings]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["task"] == "tinyworld_rte"
    (entry,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "page.toml").write_text(entry)
    shipped = read_designs(checkout / "configs" / "designs" / "tinyworld.toml")
    ours = read_designs(tmp_path / "page.toml")["tinyworld_rte"]["claim"]
    theirs = shipped["tinyworld_rte"]["claim"]
    assert (ours.input, ours.words) == (theirs.input, theirs.words)
