"""The official metrics of SuperGLUE (Wang et al., 2019), as fractions.

Each takes the metadata of the examples (a mapping with the "targets" text and what the task
added) and the predicted texts, one each, and returns named scores. A prediction that is none of
the labels is wrong, never skipped. `Task.evaluate` calls them and has checked the lengths.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.postprocessors import label_index, names_referent, normalize_answer

Examples = Sequence[Mapping[str, Any]]


def accuracy(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Share of predictions equal to the target text."""
    right = [p == example["targets"] for example, p in zip(examples, predictions, strict=True)]
    return {"accuracy": float(np.mean(right))}


def macro_f1(
    examples: Examples, predictions: Sequence[str], *, labels: Sequence[str]
) -> dict[str, float]:
    """Unweighted mean over the labels of the F1 of each; 0 for a label that never occurs."""
    wanted, predicted = _label_indices(examples, predictions, labels)
    return {
        "macro_f1": float(np.mean([_f1(wanted == i, predicted == i) for i in range(len(labels))]))
    }


def matthews_correlation(
    examples: Examples, predictions: Sequence[str], *, labels: Sequence[str]
) -> dict[str, float]:
    """Matthews correlation of two labels, in [-1, 1] (the metric of AX-b).

    A prediction that is no label counts as the wrong one.
    """
    wanted, predicted = _label_indices(examples, predictions, labels)
    predicted = np.where(predicted < 0, 1 - wanted, predicted)
    tp, tn, fp, fn = (
        float(np.sum((predicted == p) & (wanted == w))) for p, w in ((1, 1), (0, 0), (1, 0), (0, 1))
    )
    scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return {"matthews": float((tp * tn - fp * fn) / scale) if scale else 0.0}


def multirc(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """MultiRC's F1 over all answers (F1a) and its exact match over questions.

    Each example is one answer to the question named by its "group"; a question is matched if
    every one of its answers is judged rightly. F1a is the F1 of "True".
    """
    labels = ("False", "True")
    wanted, predicted = _label_indices(examples, predictions, labels)
    predicted = np.where(predicted < 0, 1 - wanted, predicted)
    questions: dict[tuple[Any, ...], bool] = defaultdict(lambda: True)
    for example, right in zip(examples, predicted == wanted, strict=True):
        questions[tuple(example["group"])] &= bool(right)
    return {
        "f1a": _f1(wanted == 1, predicted == 1),
        "exact_match": float(np.mean(list(questions.values()))),
    }


def record(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """ReCoRD's exact match and token F1, each the best over the listed "answers" of a query."""

    def best(score: Callable[[str, str], float]) -> float:
        return float(
            np.mean(
                [
                    max(
                        score(normalize_answer(answer), normalize_answer(p))
                        for answer in example["answers"]
                    )
                    for example, p in zip(examples, predictions, strict=True)
                ]
            )
        )

    return {"exact_match": best(lambda answer, p: float(answer == p)), "f1": best(_token_f1)}


def wsc(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """WSC's accuracy, when the referent is generated.

    The candidate noun phrase of an example is its "targets"; the model is taken to say that the
    pronoun refers to it if what it generated names it (`names_referent`), which is right if the
    example's "label" says so too. Naming nothing is wrong.
    """
    right = [
        names_referent(prediction, example["targets"]) == example["label"]
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    return {"accuracy": float(np.mean(right))}


def superglue_score(task_metrics: Mapping[str, Mapping[str, float]]) -> float:
    """The SuperGLUE score: the mean over tasks, a task with two metrics counting their mean."""
    return float(np.mean([np.mean(list(metrics.values())) for metrics in task_metrics.values()]))


def _label_indices(
    examples: Examples, predictions: Sequence[str], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the wanted and of the predicted labels; -1 is none of them."""
    wanted = [label_index(example["targets"], labels) for example in examples]
    predicted = [label_index(prediction, labels) for prediction in predictions]
    return np.array(wanted), np.array(predicted)


def _f1(wanted: np.ndarray, predicted: np.ndarray) -> float:
    true_positives = np.sum(wanted & predicted)
    total = np.sum(wanted) + np.sum(predicted)
    return float(2 * true_positives / total) if total else 0.0


def _token_f1(answer: str, prediction: str) -> float:
    answer_words, predicted_words = answer.split(), prediction.split()
    common = sum((Counter(answer_words) & Counter(predicted_words)).values())
    return 2 * common / (len(answer_words) + len(predicted_words)) if common else 0.0
