"""What a task refuses, and the list of tasks."""

import dataclasses

import pytest

from prompt_tuning.data.metrics import accuracy
from prompt_tuning.data.sources import JsonlSource
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.data.tasks.task import Example, Task, register_task
from prompt_tuning.errors import UserError


def render(row, training):
    yield Example(inputs=row["text"], targets=row["label"], metadata={"training": training})


@pytest.fixture
def task(tmp_path) -> Task:
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "a", "label": "yes"}\n{"text": "b", "label": "no"}\n')
    return Task(
        name="toy",
        source=lambda data_dir: JsonlSource(files={"train": path, "validation": path}),
        render=render,
        metrics=(accuracy,),
        labels=("no", "yes"),
        splits=("train", "validation"),
    )


def test_examples_say_whether_they_are_trained_on(task):
    assert [e.metadata["training"] for e in task.examples("train")] == [True, True]
    assert [e.metadata["training"] for e in task.examples("validation")] == [False, False]


def test_label_outside_the_set(task):
    narrow = dataclasses.replace(task, labels=("yes", "maybe"))
    with pytest.raises(UserError, match=r"data.jsonl:2: label 'no' is not one of yes, maybe"):
        list(narrow.examples("train"))


def test_missing_field(task):
    other = dataclasses.replace(task, render=lambda row, training: [row["question"]])
    with pytest.raises(UserError, match="data.jsonl:1: no field 'question'; found 'text', 'label'"):
        list(other.examples("train"))


def test_unknown_split(task):
    with pytest.raises(UserError, match="Task 'toy' has no split 'test'; it has train, validation"):
        list(task.examples("test"))


def test_withheld_label_is_no_training_example(task):
    blind = dataclasses.replace(
        task, render=lambda row, training: [Example(inputs=row["text"], targets="<unk>")]
    )
    assert len(list(blind.examples("validation"))) == 2
    with pytest.raises(UserError, match="data.jsonl:1: no label; a training example needs one"):
        list(blind.examples("train"))


def test_a_row_to_be_answered_needs_no_label(task):
    assert task.inputs_of({"text": "a"}) == "a"
    written = dataclasses.replace(task, text=lambda row: f"text: {row['text']}")
    assert written.inputs_of({"text": "a"}) == "text: a"


def test_evaluate_and_score(task):
    examples = [{"targets": "yes"}, {"targets": "no"}]
    assert task.evaluate(examples, ["yes", "yes"]) == {"accuracy": 0.5}
    assert task.score({"accuracy": 0.5, "f1": 0.9}) == pytest.approx(0.7)
    with pytest.raises(UserError, match="labels of task 'toy' are withheld"):
        task.evaluate([{"targets": "<unk>"}], ["yes"])
    with pytest.raises(UserError, match="no examples to score"):
        task.evaluate([], [])


def test_unknown_task_suggests_the_closest():
    with pytest.raises(UserError, match="Unknown task 'superglue_rtee'.*'superglue_rte'"):
        get_task("superglue_rtee")


def test_a_name_is_given_once(task):
    taken = dataclasses.replace(task, name="superglue_rte")
    assert "superglue_rte" in list_tasks()
    with pytest.raises(UserError, match="already a task 'superglue_rte'"):
        register_task(taken)


def test_t5_can_say_every_label(t5_vocabulary):
    for name in list_tasks():
        t5_vocabulary.check_labels(get_task(name).labels or ())
