"""The official metrics of SuperGLUE, GLUE, SQuAD, MRQA and summarization, as fractions.

Each takes the metadata of the examples (a mapping with the "targets" text and the task's additions)
and one predicted text per example, and returns named scores. A prediction that isn't a label is
wrong, never skipped. `Task.evaluate` calls them after checking the lengths. scikit-learn, SciPy and
rouge-score are imported inside functions, for a faster start.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.postprocessors import label_index, names_referent, normalize_answer

Examples = Sequence[Mapping[str, Any]]


def accuracy(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns the share of predictions that equal the target text."""
    right = [p == example["targets"] for example, p in zip(examples, predictions, strict=True)]
    return {"accuracy": float(np.mean(right))}


def macro_f1(
    examples: Examples, predictions: Sequence[str], *, labels: Sequence[str]
) -> dict[str, float]:
    """Returns the unweighted mean of the labels' F1, which is 0 for a label that never occurs."""
    indices = _label_indices(examples, predictions, labels)
    return {"macro_f1": _f1(*indices, labels=range(len(labels)), average="macro")}


def matthews_correlation(
    examples: Examples, predictions: Sequence[str], *, labels: Sequence[str]
) -> dict[str, float]:
    """Returns the Matthews correlation, in [-1, 1] (the metric of AX-b, CoLA and AX).

    Predictions that aren't labels are a separate class, as in T5's evaluation.
    """
    from sklearn.metrics import matthews_corrcoef

    wanted, predicted = _label_indices(examples, predictions, labels)
    return {"matthews": float(matthews_corrcoef(wanted, predicted))}


def f1(
    examples: Examples, predictions: Sequence[str], *, labels: Sequence[str]
) -> dict[str, float]:
    """Returns the F1 of the second of two labels (the metric of MRPC and QQP)."""
    wanted, predicted = _label_indices(examples, predictions, labels)
    predicted = np.where(predicted < 0, 1 - wanted, predicted)
    return {"f1": _f1(wanted, predicted)}


def similarity_correlations(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns Pearson and Spearman correlations with "score", in [-1, 1] (STS-B's metrics).

    A prediction that isn't a number counts as -1, as in T5's evaluation. If all predictions are
    equal, the correlations count as 0.
    """
    scores = [example["score"] for example in examples]
    predicted = [_number(prediction, -1.0) for prediction in predictions]
    return {kind: _correlation(kind, scores, predicted) for kind in ("pearson", "spearman")}


def pearson(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns the Pearson correlation of predicted numbers with the targets, in [-1, 1].

    A prediction that isn't a number counts as the minimum or the maximum of all targets, the one
    further from its own target. If all predictions are equal, the correlation counts as 0.
    """
    return {"pearson": _correlation("pearson", *_numbers(examples, predictions))}


def spearman(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns Spearman's rank correlation; otherwise as `pearson`."""
    return {"spearman": _correlation("spearman", *_numbers(examples, predictions))}


def _numbers(
    examples: Examples, predictions: Sequence[str]
) -> tuple[Sequence[float], Sequence[float]]:
    wanted = [float(example["targets"]) for example in examples]
    low, high = min(wanted), max(wanted)
    furthest = [high if high - number > number - low else low for number in wanted]
    return wanted, [_number(p, far) for p, far in zip(predictions, furthest, strict=True)]


def _correlation(kind: str, scores: Sequence[float], predicted: Sequence[float]) -> float:
    from scipy.stats import pearsonr, spearmanr

    if len(set(predicted)) == 1 or len(set(scores)) == 1:
        return 0.0
    found: Any = (pearsonr if kind == "pearson" else spearmanr)(scores, predicted)
    return float(found.statistic)  # SciPy types its results too loosely


def multi_label(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns scores of sets of labels, written with commas in any order.

    Exact match is the share of equal sets. Micro F1 counts every element of every set, including
    predicted ones that aren't labels; macro F1 is the mean over the labels of the targets.
    """
    from sklearn.preprocessing import MultiLabelBinarizer

    wanted = [_label_set(example["targets"]) for example in examples]
    predicted = [_label_set(prediction) for prediction in predictions]
    labels = sorted(set().union(*wanted))
    others = sorted(set().union(*predicted) - set(labels))
    binarizer = MultiLabelBinarizer(classes=[*labels, *others]).fit([])
    counted = (binarizer.transform(wanted), binarizer.transform(predicted))
    return {
        "exact_match": float(np.mean([w == p for w, p in zip(wanted, predicted, strict=True)])),
        "micro_f1": _f1(*counted, average="micro"),
        "macro_f1": _f1(*counted, average="macro", labels=range(len(labels))),
    }


def _label_set(text: str) -> frozenset[str]:
    return frozenset(label.strip() for label in text.split(",") if label.strip())


def multirc(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns MultiRC's F1 over all answers (F1a) and its exact match over questions.

    Each example is one answer to the question named by its "group"; a question is matched if all
    of its answers are judged correctly. F1a is the F1 of "True".
    """
    labels = ("False", "True")
    wanted, predicted = _label_indices(examples, predictions, labels)
    predicted = np.where(predicted < 0, 1 - wanted, predicted)
    questions: dict[tuple[Any, ...], bool] = defaultdict(lambda: True)
    for example, right in zip(examples, predicted == wanted, strict=True):
        questions[tuple(example["group"])] &= bool(right)
    return {
        "f1a": _f1(wanted, predicted),
        "exact_match": float(np.mean(list(questions.values()))),
    }


def squad(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns the exact match and token F1 of SQuAD 1.1, MRQA and ReCoRD.

    Each is the maximum over the "answers" of a question, after `normalize_answer` (Rajpurkar et
    al., 2016).
    """
    matches, f1s = [], []
    for example, prediction in zip(examples, map(normalize_answer, predictions), strict=True):
        answers = [normalize_answer(answer) for answer in example["answers"]]
        matches.append(prediction in answers)
        f1s.append(max(_token_f1(answer, prediction) for answer in answers))
    return {"exact_match": float(np.mean(matches)), "f1": float(np.mean(f1s))}


def rouge(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns ROUGE-1, ROUGE-2 and ROUGE-Lsum, F-measures averaged over the examples (Lin, 2004).

    As in T5's evaluation, there is no stemming, and a sentence ends at a line break or at a period
    between spaces.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rouge2", "rougeLsum"])
    scores = [
        scorer.score(_sentence_lines(example["targets"]), _sentence_lines(prediction))
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    return {
        name: float(np.mean([score[name].fmeasure for score in scores]))
        for name in scorer.rouge_types
    }


def wsc(examples: Examples, predictions: Sequence[str]) -> dict[str, float]:
    """Returns WSC's accuracy, with generated referents.

    The candidate noun phrase of an example is its "targets". A prediction that names it
    (`names_referent`) claims that the pronoun refers to it, which is right if the example's "label"
    agrees. Naming nothing is wrong.
    """
    right = [
        names_referent(prediction, example["targets"]) == example["label"]
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    return {"accuracy": float(np.mean(right))}


def superglue_score(task_metrics: Mapping[str, Mapping[str, float]]) -> float:
    """Returns the SuperGLUE score: the mean over tasks of the mean of each task's metrics."""
    return float(np.mean([np.mean(list(metrics.values())) for metrics in task_metrics.values()]))


def _label_indices(
    examples: Examples, predictions: Sequence[str], labels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the target labels and of the predicted ones, -1 if not a label."""
    wanted = [label_index(example["targets"], labels) for example in examples]
    predicted = [label_index(prediction, labels) for prediction in predictions]
    return np.array(wanted), np.array(predicted)


def _f1(wanted: Any, predicted: Any, **options: Any) -> float:
    """Returns scikit-learn's F1, by default for label 1."""
    from sklearn.metrics import f1_score

    score: Any = f1_score  # its types lack documented options
    return float(score(wanted, predicted, zero_division=0, **options))


def _token_f1(answer: str, prediction: str) -> float:
    answer_words, predicted_words = answer.split(), prediction.split()
    common = sum((Counter(answer_words) & Counter(predicted_words)).values())
    return 2 * common / (len(answer_words) + len(predicted_words)) if common else 0.0


def is_number(text: str) -> bool:
    """Returns whether a text is a finite number."""
    return math.isfinite(_number(text, math.nan))


def _number(text: str, otherwise: float) -> float:
    """Returns a text as a number, or `otherwise` if it isn't a finite number."""
    try:
        number = float(text)
    except ValueError:
        return otherwise
    return number if math.isfinite(number) else otherwise


def _sentence_lines(summary: str) -> str:
    return summary.replace(" . ", " .\n")
