"""The official metrics, on cases worked by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from prompt_tuning.data import metrics

CB = ("entailment", "contradiction", "neutral")


def of(targets: list[str]) -> list[dict]:
    return [{"targets": target} for target in targets]


def test_accuracy():
    examples = of(["True", "False", "True", "True"])
    assert metrics.accuracy(examples, ["True", "True", "true", "True"]) == {"accuracy": 0.5}


def test_macro_f1_by_hand():
    examples = of(["entailment", "entailment", "contradiction", "neutral"])
    predictions = ["entailment", "contradiction", "contradiction", "nothing"]
    # entailment: 1 of 1 said, 1 of 2 found, F1 2/3; contradiction: 1 of 2, 1 of 1, 2/3; neutral 0.
    found = metrics.macro_f1(examples, predictions, labels=CB)
    assert found == {"macro_f1": pytest.approx(4 / 9)}


def test_macro_f1_counts_a_label_that_never_occurs_as_zero():
    examples = of(["entailment", "contradiction"])
    found = metrics.macro_f1(examples, ["entailment", "contradiction"], labels=CB)
    assert found == {"macro_f1": pytest.approx(2 / 3)}


def test_macro_f1_and_matthews_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    wanted, said = rng.choice(CB, 200), rng.choice([*CB, "nothing"], 200)
    found = metrics.macro_f1(of(list(map(str, wanted))), list(map(str, said)), labels=CB)
    expected = f1_score(wanted, said, labels=CB, average="macro")
    assert found["macro_f1"] == pytest.approx(expected)

    two = ("entailment", "not_entailment")
    wanted, said = rng.choice(two, 50), rng.choice(two, 50)
    found = metrics.matthews_correlation(
        of(list(map(str, wanted))), list(map(str, said)), labels=two
    )
    assert found["matthews"] == pytest.approx(matthews_corrcoef(wanted, said))


def test_matthews_of_constant_predictions_is_zero():
    two = ("entailment", "not_entailment")
    found = metrics.matthews_correlation(of(list(two)), ["entailment"] * 2, labels=two)
    assert found == {"matthews": 0.0}


def multirc_examples() -> list[dict]:
    # Question (0, 0) has three answers; (0, 1) and, with its number again, (1, 0) have one each.
    groups = [[0, 0], [0, 0], [0, 0], [0, 1], [1, 0]]
    targets = ["True", "False", "True", "False", "True"]
    return [{"group": g, "targets": t} for g, t in zip(groups, targets, strict=True)]


def test_multirc_by_hand():
    predictions = ["True", "False", "False", "False", "True"]
    # F1a: 2 said and right, 3 wanted: precision 1, recall 2/3. Questions: wrong, right, right.
    assert metrics.multirc(multirc_examples(), predictions) == {
        "f1a": pytest.approx(0.8),
        "exact_match": pytest.approx(2 / 3),
    }


def test_multirc_counts_what_is_no_label_as_wrong():
    # All right but for "maybe", where "False" was wanted: it counts as a "True" said wrongly.
    predictions = ["True", "False", "True", "maybe", "True"]
    assert metrics.multirc(multirc_examples(), predictions) == {
        "f1a": pytest.approx(6 / 7),
        "exact_match": pytest.approx(2 / 3),
    }


def test_squad_takes_the_best_of_the_listed_answers():
    examples = [
        {"targets": "Barack Obama", "answers": ["Barack Obama", "Obama"]},
        {"targets": "New York", "answers": ["New York"]},
        {"targets": "CNN", "answers": ["CNN"]},
    ]
    predictions = ["the Obama.", "New York City", "BBC"]
    # F1 of the second: 2 of 3 words said, 2 of 2 wanted.
    assert metrics.squad(examples, predictions) == {
        "exact_match": pytest.approx(1 / 3),
        "f1": pytest.approx((1 + 0.8 + 0) / 3),
    }


def test_wsc_asks_whether_the_candidate_was_named():
    examples = [
        {"targets": "Mark", "label": True},
        {"targets": "Pete", "label": False},
        {"targets": "the cat", "label": False},
        {"targets": "Ann", "label": True},
        {"targets": "Ann", "label": False},
    ]
    # Named and right; not named and right; named though wrong; not named; nothing said.
    predictions = ["Mark", "Mark", "cat", "Jane", ""]
    assert metrics.wsc(examples, predictions) == {"accuracy": 0.4}


def test_superglue_score_counts_a_tasks_mean():
    scores = {
        "cb": {"accuracy": 0.9, "macro_f1": 0.5},
        "rte": {"accuracy": 0.8},
        "multirc": {"f1a": 0.6, "exact_match": 0.2},
    }
    assert metrics.superglue_score(scores) == pytest.approx((0.7 + 0.8 + 0.4) / 3)
