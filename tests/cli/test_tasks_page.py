"""The commands and the program of docs/tasks.md as they stand there, on tiny data and weights."""

import json
import re
import shlex
import shutil

import pytest

from prompt_tuning.cli.__main__ import main

pytestmark = pytest.mark.usefixtures("compile_once")

MRQA = ("textbook_qa", "bio_asq", "race", "relation_extraction", "duo_rc", "drop")
METRICS = {
    "glue_qqp_from_mrpc": ["f1", "accuracy"],
    "mrqa": [f"mrqa_{name}/{metric}" for name in MRQA for metric in ("exact_match", "f1")],
}


@pytest.fixture(scope="module")
def page(checkout) -> str:
    return (checkout / "docs" / "tasks.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def commands(page) -> list[list[str]]:
    lines = re.findall(r"^    prompt-tuning .*", page.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) == 4
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize(("pair", "scored_on"), list(enumerate(METRICS)))
def test_a_run_is_scored_on_another_task(
    commands, tiny_settings, tmp_path, monkeypatch, capsys, pair, scored_on
):
    monkeypatch.chdir(tmp_path)
    train, evaluate = commands[2 * pair : 2 * pair + 2]
    main([*train, *tiny_settings])
    capsys.readouterr()
    main(evaluate)
    result = json.loads(capsys.readouterr().out)
    assert (result["task"], result["split"]) == (scored_on, "validation")
    assert list(result)[3:-1] == METRICS[scored_on]
    assert 0 <= result["score"] <= 1


def test_text_to_pretrain_on(page, tmp_path, monkeypatch, tiny_vocabulary_file):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_vocabulary_file, "spiece.model")
    (tmp_path / "wiki.txt").write_text("A cat sat on the mat.\n" * 200)
    (program,) = (block.split("```")[0] for block in page.split("```python\n")[1:])
    names: dict = {}
    exec(compile(program, "docs/tasks.md", "exec"), names)
    assert names["batch"]["decoder_target_tokens"].shape == (32, 512)


def test_every_gin_file_that_it_names_is_there(page, checkout):
    named = set(re.findall(r"[`/](\w+\.gin)`", page)) | set(re.findall(r"tasks/(\w+\.gin)", page))
    shipped = {path.name for path in (checkout / "configs" / "tasks").glob("*.gin")}
    assert named and named <= shipped
