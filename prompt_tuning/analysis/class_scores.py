"""Scores per class, and wrong answers, from a run's predictions.

A row has `targets`, `prediction` and optionally `inputs`, as in `predictions/*.jsonl` of a run
folder and in the file of `prompt-tuning evaluate --predictions`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from sklearn.metrics import precision_recall_fscore_support

from prompt_tuning.analysis.tables import Table

OTHER = "(other)"
"""The column for all answers that aren't one of the labels."""

MOST_LABELS = 20
"""The maximum number of labels in a table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Precision, recall, F1 and support per label, and the confusion matrix.

    Attributes:
      labels: the label words.
      confusion: number of examples by target and answer, [labels, labels + 1]; the last column is
        `OTHER`.
    """

    labels: Sequence[str]
    precision: Sequence[float]
    recall: Sequence[float]
    f1: Sequence[float]
    support: Sequence[int]
    confusion: Int[np.ndarray, "labels answers"]

    @property
    def scores_table(self) -> Table:
        """The scores, a row per label."""
        numbers = (self.precision, self.recall, self.f1, self.support)
        return Table(
            title="Scores of each class",
            columns=["class", "precision", "recall", "F1", "support"],
            rows=[list(row) for row in zip(self.labels, *numbers, strict=True)],
        )

    @property
    def confusion_table(self) -> Table:
        """The confusion matrix, a row per target and a column per answer."""
        counts = self.confusion.tolist()
        shown = [*self.labels, OTHER] if self.confusion[:, -1].any() else list(self.labels)
        return Table(
            title="Confusion matrix; rows: targets, columns: answers",
            columns=["target", *shown],
            rows=[
                [label, *row[: len(shown)]] for label, row in zip(self.labels, counts, strict=True)
            ],
        )


def class_scores(
    rows: Sequence[Mapping[str, Any]], labels: Sequence[str] | None = None
) -> ClassScores | None:
    """Returns the scores per class.

    Args:
      rows: predictions with targets.
      labels: the task's. If None, the distinct targets, if they are few enough to be labels.

    Returns:
      The scores, or None if the answers are free text.
    """
    pairs = [(row.get("targets"), row.get("prediction")) for row in rows]
    texts = [(t, p) for t, p in pairs if isinstance(t, str) and isinstance(p, str)]
    if not texts or len(texts) < len(pairs):
        return None
    if labels is None:
        labels = sorted({target for target, _ in texts})
        if len(labels) > MOST_LABELS or 2 * len(labels) > len(texts):
            return None
    targets, answers = zip(*texts, strict=True)
    found = precision_recall_fscore_support(
        targets,
        answers,
        labels=list(labels),
        zero_division=0,  # pyright: ignore[reportArgumentType]
    )
    precision, recall, f1, support = (np.asarray(each).tolist() for each in found)
    column = {label: i for i, label in enumerate(labels)}
    confusion = np.zeros((len(labels), len(labels) + 1), np.int64)
    for target, answer in texts:
        if target in column:
            confusion[column[target], column.get(answer, len(labels))] += 1
    return ClassScores(
        labels=list(labels),
        precision=precision,
        recall=recall,
        f1=f1,
        support=[int(count) for count in support],
        confusion=confusion,
    )


def wrong_answers(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the rows whose prediction isn't their target."""
    return [row for row in rows if not is_right(row)]


def is_right(row: Mapping[str, Any]) -> bool:
    """Whether the prediction is the target, or one of several."""
    targets = row.get("targets")
    accepted = targets if isinstance(targets, list) else [targets]
    return row.get("prediction") in accepted
