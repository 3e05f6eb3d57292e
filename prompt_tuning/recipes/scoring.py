"""Scores adapters on the splits of tasks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prompt_tuning.data.batching import eval_batches, of_task
from prompt_tuning.data.metrics import superglue_score
from prompt_tuning.data.tasks.task import Task, is_withheld
from prompt_tuning.data.token_batches import token_eval_batches
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.answerer import Answerer, IndexedBatch, Inject
from prompt_tuning.evaluation.ensemble import Ballot
from prompt_tuning.evaluation.rank import RankOptions
from prompt_tuning.parallel.mesh import DATA_AXIS, shard_batch
from prompt_tuning.parallel.processes import is_first
from prompt_tuning.recipes.counting import counted
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.splits import load_splits
from prompt_tuning.recipes.task_data import Data, prompt_length
from prompt_tuning.training.run import Evaluation

Score = Callable[[Inject], Evaluation]


def labels_to_rank(data: Data, task: Task, prediction: Prediction) -> tuple[str, ...]:
    """Returns the labels to rank for a task; none if its answers are decoded.

    In a mixture, tasks without labels are decoded even if the others are ranked.

    Raises:
      UserError: rank classification is requested for a single task without labels.
    """
    if prediction.rank and not task.labels and len(data.tasks) == 1:
        raise UserError(
            f"predict.method is 'rank', but the answer to {task.name} is free text and has no "
            "labels to rank; set it to 'greedy'."
        )
    return (task.labels or ()) if prediction.rank else ()


def rank_options(base: Base, prediction: Prediction) -> RankOptions:
    """Returns the options for correcting the scores of labels."""
    text = prediction.calibration
    return RankOptions(
        length_normalization=prediction.length_normalization,
        content_free=None if text is None else tuple(base.vocabulary.encode_inputs(text)[0]),
    )


def evaluate(
    base: Base, data: Data, prediction: Prediction, split: str, inject: Inject
) -> Evaluation:
    """Scores an injection on a split of every task.

    Raises:
      UserError: the split doesn't exist, or its labels are withheld.
    """
    splits = load_splits(base, data, split)
    if withheld(splits):
        raise UserError(
            f"The labels of {data.name}'s {split} split are withheld, so it can't be scored; give "
            "another split, such as validation."
        )
    return scorer(base, data, prediction, splits)(inject)


def scorer(
    base: Base, data: Data, prediction: Prediction, splits: Sequence[TokenizedSplit]
) -> Score:
    """Returns a function from an injection to its scores on a split of every task.

    A mixture's metrics are prefixed by task names; its score is the mean of its tasks' scores.
    """
    score = scorer_of_many(base, data, prediction, splits)
    return lambda inject: score([inject])[0]


def scorer_of_many(
    base: Base, data: Data, prediction: Prediction, splits: Sequence[TokenizedSplit]
) -> Callable[[Sequence[Inject]], list[Evaluation]]:
    """Returns a function from several injections to their scores, as in `scorer`.

    One pass scores all of them. Each number of injections compiles a separate program.
    """
    answerers = _answerers(base, data, prediction)

    def score(injects: Sequence[Inject]) -> list[Evaluation]:
        answers = [
            answerer.predict(
                injects, _batches(task, split, data, base, injects), seed=prediction.seed
            )
            for answerer, task, split in zip(answerers, data.tasks, splits, strict=True)
        ]  # [tasks, injections, examples]
        return [score_of_answers(data, splits, each) for each in zip(*answers, strict=True)]

    return score


def ballots(
    base: Base,
    data: Data,
    prediction: Prediction,
    splits: Sequence[TokenizedSplit],
    injects: Sequence[Inject],
) -> list[list[Ballot]]:
    """Returns the votes of several injections on the examples of each task's split.

    One pass over the examples computes all of them.
    """
    return [
        answerer.ballots(injects, _batches(task, split, data, base, injects), seed=prediction.seed)
        for answerer, task, split in zip(
            _answerers(base, data, prediction), data.tasks, splits, strict=True
        )
    ]


def score_of_answers(
    data: Data, splits: Sequence[TokenizedSplit], answers: Sequence[Sequence[str]]
) -> Evaluation:
    """Scores the answers to the examples of each task's split, as in `scorer`."""
    metrics = {
        task.name: {
            name: float(value) for name, value in task.evaluate(split.metadata, texts).items()
        }
        for task, split, texts in zip(data.tasks, splits, answers, strict=True)
    }
    named = {
        f"{task}/{name}" if len(metrics) > 1 else name: value
        for task, values in metrics.items()
        for name, value in values.items()
    }
    rows = _prediction_rows(data, splits, answers)
    return Evaluation(metrics=named, score=superglue_score(metrics), predictions=rows)


def answers(
    base: Base,
    data: Data,
    prediction: Prediction,
    splits: Sequence[TokenizedSplit],
    inject: Inject,
) -> list[dict[str, Any]]:
    """Returns predictions, one row per example, without scores: labels may be withheld."""
    texts = [
        answerer.predict(
            [inject], _batches(task, split, data, base, [inject]), seed=prediction.seed
        )[0]
        for answerer, task, split in zip(
            _answerers(base, data, prediction), data.tasks, splits, strict=True
        )
    ]
    return _prediction_rows(data, splits, texts)


def withheld(splits: Sequence[TokenizedSplit]) -> bool:
    """Returns whether labels are withheld, as in a leaderboard's test splits."""
    return any(is_withheld(row) for split in splits for row in split.metadata)


def _answerers(base: Base, data: Data, prediction: Prediction) -> list[Answerer]:
    """Returns an answerer for each task."""
    form = data.target_form(base.vocabulary)
    answerers = []
    for task in data.tasks:
        labels = labels_to_rank(data, task, prediction)
        answerers.append(
            Answerer(
                model=base.model,
                frozen=base.params,
                options=rank_options(base, prediction) if labels else prediction.decoding,
                decode=form.decode,
                labels=labels,
                label_ids=form.encode_labels(labels) if labels else None,
            )
        )
    return answerers


def _batches(
    task: Task, examples: TokenizedSplit, data: Data, base: Base, injects: Sequence[Inject]
) -> Iterator[IndexedBatch]:
    """Yields the batches of a split, placed on the devices, and shows progress."""
    like_training = [examples] * len(data.tasks)
    budget = data.token_budget(
        base.mesh.shape[DATA_AXIS],
        lambda: max(prompt_length(inject, like_training) for inject in injects),
    )
    if budget is None:
        batches = eval_batches(examples, data.batch_size, data.num_lengths)
    else:
        batches = token_eval_batches(examples, budget)
    what, shown = f"Scoring {examples.task} {examples.split}", is_first()
    for batch, indices in counted(
        batches, what, len(examples), size=lambda batch: len(batch[1]), shown=shown
    ):
        # A mixture's batches contain the task's index, as in training.
        batch = of_task(batch, data.tasks.index(task)) if len(data.tasks) > 1 else batch
        yield shard_batch(batch, base.mesh), indices


def _prediction_rows(
    data: Data, splits: Sequence[TokenizedSplit], answers: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """Returns one row per example: its inputs, its targets unless withheld, its prediction."""
    rows = []
    for task, split, texts in zip(data.tasks, splits, answers, strict=True):
        for index, (known, prediction) in enumerate(zip(split.metadata, texts, strict=True)):
            row = {"task": task.name, **known, "prediction": prediction}
            if split.texts:
                row = {"task": task.name, "inputs": split.texts[index], **row}
            if is_withheld(known):
                del row["targets"]
            rows.append(row)
    return rows
