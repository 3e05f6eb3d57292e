"""Scores of classes against numbers worked out by hand."""

import pytest

from prompt_tuning.analysis.class_scores import class_scores, wrong_answers


def rows(*pairs):
    return [{"targets": target, "prediction": answer} for target, answer in pairs]


PREDICTIONS = rows(("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("b", "else"), ("b", "a"))


def test_precision_recall_and_confusions():
    found = class_scores(PREDICTIONS)
    assert found is not None
    assert found.labels == ["a", "b"]
    assert found.precision == pytest.approx([2 / 3, 1 / 2])
    assert found.recall == pytest.approx([2 / 3, 1 / 3])
    assert found.f1 == pytest.approx([2 / 3, 2 / 5])
    assert found.support == [3, 3]
    assert found.confusion.tolist() == [[2, 1, 0], [1, 1, 1]]
    assert found.confusion_table.columns == ["target", "a", "b", "(other)"]


def test_a_label_that_is_never_a_target_has_its_row():
    found = class_scores(PREDICTIONS, labels=["b", "a", "never"])
    assert found is not None
    assert found.support == [3, 3, 0]
    assert found.recall[2] == 0


def test_free_text_has_no_classes():
    assert class_scores(rows(*((f"text {i}", "x") for i in range(50)))) is None
    assert class_scores([{"targets": ["a", "b"], "prediction": "a"}]) is None
    assert class_scores([]) is None


def test_wrong_answers_are_none_of_the_targets():
    several = {"targets": ["a", "b"], "prediction": "b"}
    assert wrong_answers([*rows(("a", "b"), ("a", "a")), several]) == rows(("a", "b"))
