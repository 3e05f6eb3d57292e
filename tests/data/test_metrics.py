"""The official metrics, on cases worked by hand."""

import lzma

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
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


def test_matthews_by_hand():
    # 2 right of 3 "a", 1 of 1 "b": (2*1 - 0*1) / sqrt(2*3*1*2).
    found = metrics.matthews_correlation(of(list("baaa")), list("baab"), labels=("b", "a"))
    assert found == {"matthews": pytest.approx(2 / np.sqrt(12))}


def test_matthews_of_three_labels_and_of_none_of_them():
    wanted = [*CB, *CB]
    said = [*CB, "neutral", "nothing", "neutral"]
    found = metrics.matthews_correlation(of(wanted), said, labels=CB)
    assert found == {"matthews": pytest.approx(matthews_corrcoef(wanted, said))}


def test_f1_of_the_second_label():
    yes_no = ("no", "yes")
    # 2 of 3 said, 2 of 3 found.
    examples = of(["yes", "yes", "yes", "no", "no"])
    found = metrics.f1(examples, ["yes", "yes", "no", "yes", "no"], labels=yes_no)
    assert found == {"f1": pytest.approx(2 / 3)}
    # "maybe" is wrong: a "no" where "yes" was wanted, a "yes" where "no" was.
    found = metrics.f1(examples, ["yes", "yes", "maybe", "maybe", "no"], labels=yes_no)
    assert found == {"f1": pytest.approx(2 / 3)}
    assert metrics.f1(of(["no"]), ["no"], labels=yes_no) == {"f1": 0.0}

    rng = np.random.default_rng(0)
    wanted, said = rng.choice(yes_no, (2, 100)).tolist()
    expected = f1_score(wanted, said, pos_label="yes")
    assert metrics.f1(of(wanted), said, labels=yes_no) == {"f1": pytest.approx(expected)}


def test_correlations_of_similarities():
    scores = [1.0, 2.0, 3.0, 4.0]
    examples = [{"targets": f"{score:.1f}", "score": score} for score in scores]
    # Predictions 2, 1, 4, 3 have covariance 0.75 with scores of variance 1.25.
    found = metrics.similarity_correlations(examples, ["2.0", "1.0", "4.0", "3.0"])
    assert found == {"pearson": pytest.approx(0.6), "spearman": pytest.approx(0.6)}
    # What is no number counts as -1.
    found = metrics.similarity_correlations(examples, ["1.0", "two", "nan", "4.4"])
    assert found == {
        "pearson": pytest.approx(pearsonr(scores, [1, -1, -1, 4.4])[0]),
        "spearman": pytest.approx(spearmanr(scores, [1, -1, -1, 4.4])[0]),
    }
    constant = metrics.similarity_correlations(examples, ["3.0"] * 4)
    assert constant == {"pearson": 0.0, "spearman": 0.0}


def test_rouge_by_hand():
    examples = of(["the cat sat on the mat", "a b . c d . e"])
    found = metrics.rouge(examples, ["the cat on a mat", "c d . a b . e"])
    # First: 4 words in common of 6 and 5; "the cat" alone of 5 and 4 pairs; a subsequence of 4.
    # Second: all words; of four pairs "a b" and "c d"; sentence by sentence all words again.
    assert found == {
        "rouge1": pytest.approx((8 / 11 + 1) / 2),
        "rouge2": pytest.approx((2 / 9 + 2 / 4) / 2),
        "rougeLsum": pytest.approx((8 / 11 + 1) / 2),
    }
    assert set(metrics.rouge(of(["x"]), [""]).values()) == {0.0}


def real_questions(real_data) -> tuple[list[dict], list[str]]:
    """A thousand pieces of real sentences as answers, and overlapping ones as predictions."""
    with lzma.open(real_data / "corpus" / "enwiki_2015_core_100mb.txt.xz", "rt") as file:
        words = file.read(200_000).split()
    rng = np.random.default_rng(0)

    def piece(start: int) -> str:
        return " ".join(words[start : start + rng.integers(1, 6)])

    starts = rng.integers(0, len(words) - 10, 1000)
    answers = [[piece(start), piece(start + rng.integers(0, 3))] for start in starts]
    return [{"answers": pair} for pair in answers], [piece(start) for start in starts]


def test_squad_equals_the_official_script_on_real_text(real_data):
    """What MRQA's `mrqa_official_eval.py` prints for these answers and predictions."""
    found = metrics.squad(*real_questions(real_data))
    assert found == {"exact_match": 0.321, "f1": pytest.approx(0.7747476190476172)}


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


def test_sets_of_labels_have_no_order():
    wanted = of(["a, b", "b", "c"])
    assert set(metrics.multi_label(wanted, ["b,a", " b ", "c"]).values()) == {1.0}
    found = metrics.multi_label(wanted, ["a", "b, d", ""])
    assert found == {
        "exact_match": 0.0,
        "micro_f1": pytest.approx(2 * 2 / (4 + 3)),  # d is one of three predicted labels
        "macro_f1": pytest.approx((1 + 2 / 3 + 0) / 3),
    }


def test_correlations_with_numbers():
    wanted = of(["1", "2", "4"])
    assert metrics.spearman(wanted, ["10", "11", "100"]) == {"spearman": pytest.approx(1)}
    right = metrics.pearson(wanted, ["1", "2", "4"])["pearson"]
    # What is no number counts as the far end, here 1 in place of 4.
    assert metrics.pearson(wanted, ["1", "2", "many"]) == metrics.pearson(wanted, ["1", "2", "1"])
    assert right == pytest.approx(1) and metrics.pearson(wanted, ["3", "3", "3"]) == {"pearson": 0}
