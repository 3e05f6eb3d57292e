"""The README's code runs, and what it names is there."""

import re

import pytest


@pytest.fixture(scope="module")
def readme(checkout) -> str:
    return (checkout / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_first_example_prints_what_it_says(readme, tmp_path, monkeypatch, capsys):
    code, _ = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    first, answer = capsys.readouterr().out.splitlines()
    score, _, shape = first.partition(" ")
    assert float(score) > 0.98
    assert f"0.9975 {shape}" in code
    assert f"# {answer}" in code


def test_the_prompt_enters_the_model_as_shown(readme):
    _, code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert names["logits"].shape == (1, 4, names["config"].vocab_size)
    assert names["injection"].encoder_prompt.shape == (1, 20, names["config"].embed_dim)


def test_files_it_names_are_there(readme, checkout):
    paths = re.findall(r"\]\(((?!http)[^)#]+)\)", readme)
    paths += re.findall(r"`((?:prompt_tuning|tests)/[\w/]+\.py)`", readme)
    paths += [f"configs/{name}" for name in re.findall(r"--gin_file=(\w+/\w+\.gin)", readme)]
    assert paths
    assert [path for path in paths if not (checkout / path).exists()] == []


def test_make_targets_it_names_are_there(readme, checkout):
    targets = set(re.findall(r"make ([a-z-]+)\b", readme))
    makefile = (checkout / "Makefile").read_text()
    assert "quickstart" in targets
    assert all(f"\n{target}:" in makefile for target in targets)


def test_make_targets_run_modules_that_are_commands(checkout):
    modules = re.findall(r"-m (prompt_tuning[\w.]*)", (checkout / "Makefile").read_text())
    assert modules
    for module in modules:
        path = checkout / module.replace(".", "/")
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert '__name__ == "__main__"' in file.read_text(), module
