"""The example of docs/adding_a_task.md, run as it stands there (the commands: tests/cli)."""

import json

import pytest

from prompt_tuning.data.tasks import task as task_module
from prompt_tuning.data.tasks.catalog import get_task
from prompt_tuning.data.tokenized import tokenized
from prompt_tuning.errors import UserError


@pytest.fixture
def reviews(checkout, monkeypatch):
    """The documented task, registered for one test only."""
    monkeypatch.setitem(task_module.TASKS, "reviews", None)  # gone again at the end
    del task_module.TASKS["reviews"]
    page = (checkout / "docs" / "adding_a_task.md").read_text(encoding="utf-8")
    programs = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    (program,) = (program for program in programs if "register_task(" in program)
    exec(compile(program, "my_task.py", "exec"), {"__name__": "my_task"})
    return get_task("reviews")


@pytest.fixture
def folder(tmp_path):
    rows = [{"review": "A fine film.", "label": "good"}, {"review": "Dull.", "label": "bad"}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("train.jsonl", "val.jsonl"):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_it_is_tokenised_and_scored(reviews, folder, tiny_vocabulary, tmp_path):
    split = tokenized(
        reviews,
        "validation",
        vocabulary=tiny_vocabulary,
        data_dir=str(folder),
        cache_dir=tmp_path / "cache",
    )
    assert split.inputs[1].tolist() == [*tiny_vocabulary.encode("review: Dull."), 1]
    assert reviews.evaluate(split.metadata, ["good", "good"]) == {"accuracy": 0.5}


def test_its_mistakes_are_told(reviews, folder):
    with pytest.raises(UserError, match="Unknown task 'review'.*'reviews'"):
        get_task("review")
    (folder / "train.jsonl").write_text('{"review": "So so.", "label": "fair"}\n')
    with pytest.raises(UserError, match="train.jsonl:1: label 'fair' is not one of good, bad"):
        list(reviews.examples("train", str(folder)))
