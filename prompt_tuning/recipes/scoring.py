"""How predictions are made and scored."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.batching import Batch, eval_batches, of_task
from prompt_tuning.data.metrics import superglue_score
from prompt_tuning.data.tasks.task import Task, is_withheld
from prompt_tuning.data.token_batches import token_eval_batches
from prompt_tuning.data.tokenized import TokenizedSplit
from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.ensemble import (
    Ballot,
    collect_ballots,
    decoding_voter,
    rank_voter,
)
from prompt_tuning.evaluation.evaluator import (
    IndexedBatch,
    Inject,
    Predictor,
    decoding_predictor,
    evaluate,
    evaluate_many,
    rank_predictor,
)
from prompt_tuning.evaluation.rank import RankOptions
from prompt_tuning.parallel.mesh import DATA_AXIS, shard_batch
from prompt_tuning.parallel.processes import is_first
from prompt_tuning.recipes.counting import counted
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.task_data import Data, prompt_length
from prompt_tuning.training.run import Evaluation

Score = Callable[[Inject], Evaluation]


def predictor_for(base: Base, data: Data, task: Task, prediction: Prediction) -> Predictor:
    """Returns the way of answering a task.

    In a mixture, the tasks without labels are decoded where the others are ranked.

    Raises:
      UserError: rank classification is asked for a single task that has no labels.
    """
    form = data.target_form(base.vocabulary)
    if prediction.rank and task.labels:
        ids = form.encode_labels(task.labels)
        return rank_predictor(base.model, ids, task.labels, rank_options(base, prediction))
    if prediction.rank and len(data.tasks) == 1:
        raise UserError(
            f"predict.method is 'rank', but the answer to {task.name} is free text and has no "
            "labels to rank; set it to 'greedy'."
        )
    return decoding_predictor(base.model, prediction.decoding, form.decode)


def rank_options(base: Base, prediction: Prediction) -> RankOptions:
    """Returns how the scores of labels are corrected."""
    text = prediction.calibration
    return RankOptions(
        length_normalization=prediction.length_normalization,
        content_free=None if text is None else (*base.vocabulary.encode(text), EOS_ID),
    )


def scorer(
    base: Base, data: Data, prediction: Prediction, splits: Sequence[TokenizedSplit]
) -> Score:
    """Returns a function from an injection to its scores on a split of every task.

    A mixture's metrics carry the task's name, and its score is the mean of its tasks' scores.
    """
    predictors = [predictor_for(base, data, task, prediction) for task in data.tasks]

    def score(inject: Inject) -> Evaluation:
        metrics: dict[str, dict[str, float]] = {}
        rows: list[dict[str, Any]] = []
        for task, examples, predictor in zip(data.tasks, splits, predictors, strict=True):
            metrics[task.name], predictions = evaluate(
                predictor,
                base.params,
                inject,
                _on_devices(_batches(task, examples, data, base, inject), base, examples),
                functools.partial(task.evaluate, examples.metadata),
                seed=prediction.seed,
            )
            rows += _prediction_rows(task, examples, predictions)
        return _evaluation(metrics, rows)

    return score


def scorer_of_many(
    base: Base, data: Data, prediction: Prediction, splits: Sequence[TokenizedSplit]
) -> Callable[[Sequence[Inject]], list[Evaluation]]:
    """Returns a function from several injections to the scores that `scorer` gives each.

    All of them see a batch at once. The program is another for each number of injections.
    """
    predictors = [predictor_for(base, data, task, prediction) for task in data.tasks]

    def score(injects: Sequence[Inject]) -> list[Evaluation]:
        metrics: list[dict[str, dict[str, float]]] = [{} for _ in injects]
        rows: list[list[dict[str, Any]]] = [[] for _ in injects]
        for task, examples, predictor in zip(data.tasks, splits, predictors, strict=True):
            found = evaluate_many(
                predictor,
                base.params,
                injects,
                _on_devices(
                    _of_task(task, data, eval_batches(examples, data.batch_size)),
                    base,
                    examples,
                ),
                functools.partial(task.evaluate, examples.metadata),
                seed=prediction.seed,
            )
            for place, (values, predictions) in enumerate(found):
                metrics[place][task.name] = values
                rows[place] += _prediction_rows(task, examples, predictions)
        return [_evaluation(*each) for each in zip(metrics, rows, strict=True)]

    return score


def ballots(
    base: Base,
    data: Data,
    prediction: Prediction,
    splits: Sequence[TokenizedSplit],
    injects: Sequence[Inject],
) -> list[list[Ballot]]:
    """Returns what several injections say to the examples of each task's split.

    All of them see a batch at once. Labels are ranked or answers decoded as in `predictor_for`.
    """
    found = []
    form = data.target_form(base.vocabulary)
    for task, examples in zip(data.tasks, splits, strict=True):
        if prediction.rank and task.labels:
            ids = form.encode_labels(task.labels)
            voter = rank_voter(base.model, ids, task.labels, rank_options(base, prediction))
        else:
            voter = decoding_voter(base.model, prediction.decoding, form.decode)
        batches = _on_devices(
            eval_batches(examples, data.batch_size, data.num_lengths), base, examples
        )
        found.append(collect_ballots(voter, base.params, injects, batches, seed=prediction.seed))
    return found


def score_of_answers(
    data: Data, splits: Sequence[TokenizedSplit], answers: Sequence[Sequence[str]]
) -> Evaluation:
    """Scores the answers to the examples of each task's split, as `scorer` does."""
    metrics: dict[str, dict[str, float]] = {}
    rows: list[dict[str, Any]] = []
    for task, examples, texts in zip(data.tasks, splits, answers, strict=True):
        metrics[task.name] = task.evaluate(examples.metadata, texts)
        rows += _prediction_rows(task, examples, texts)
    return _evaluation(metrics, rows)


def _evaluation(
    metrics: Mapping[str, Mapping[str, float]], rows: Sequence[Mapping[str, Any]]
) -> Evaluation:
    """What the tasks' metrics and predictions say; a mixture's metrics carry the task's name."""
    named = {
        f"{task}/{name}" if len(metrics) > 1 else name: value
        for task, values in metrics.items()
        for name, value in values.items()
    }
    return Evaluation(metrics=named, score=superglue_score(metrics), predictions=rows)


def answers(
    base: Base,
    data: Data,
    prediction: Prediction,
    splits: Sequence[TokenizedSplit],
    inject: Inject,
) -> list[dict[str, Any]]:
    """Returns what is predicted, an example a row, without scoring it: labels may be withheld."""
    rows: list[dict[str, Any]] = []
    for task, examples in zip(data.tasks, splits, strict=True):
        _, predictions = evaluate(
            predictor_for(base, data, task, prediction),
            base.params,
            inject,
            _on_devices(_batches(task, examples, data, base, inject), base, examples),
            lambda predictions: {},
            seed=prediction.seed,
        )
        rows += _prediction_rows(task, examples, predictions)
    return rows


def withheld(splits: Sequence[TokenizedSplit]) -> bool:
    """Returns whether labels are missing, as in the test splits of a leaderboard."""
    return any(is_withheld(row) for split in splits for row in split.metadata)


def _batches(
    task: Task, examples: TokenizedSplit, data: Data, base: Base, inject: Inject
) -> Iterator[IndexedBatch]:
    budget = data.token_budget(
        base.mesh.shape[DATA_AXIS], lambda: prompt_length(inject, [examples] * len(data.tasks))
    )
    if budget is None:
        batches = eval_batches(examples, data.batch_size, data.num_lengths)
    else:
        batches = token_eval_batches(examples, budget)
    return _of_task(task, data, batches)


def _of_task(
    task: Task, data: Data, batches: Iterable[tuple[Batch, np.ndarray]]
) -> Iterator[IndexedBatch]:
    """Says in a mixture's batches which task they are of, as training batches do."""
    index = data.tasks.index(task)
    for batch, indices in batches:
        yield (of_task(batch, index) if len(data.tasks) > 1 else batch), indices


def _on_devices(
    batches: Iterable[IndexedBatch], base: Base, examples: TokenizedSplit
) -> Iterator[IndexedBatch]:
    """Puts the batches of a split on the devices, and shows how far it has come."""
    what = f"Scoring {examples.task} {examples.split}"
    for batch, indices in counted(batches, what, len(examples), shown=is_first()):
        yield shard_batch(batch, base.mesh), indices


def _prediction_rows(
    task: Task, examples: TokenizedSplit, predictions: Sequence[str]
) -> list[dict[str, Any]]:
    """Returns a row for each example: its inputs, its targets unless withheld, the prediction."""
    rows = []
    for index, (known, prediction) in enumerate(zip(examples.metadata, predictions, strict=True)):
        row = {"task": task.name, **known, "prediction": prediction}
        if examples.texts:
            row = {"task": task.name, "inputs": examples.texts[index], **row}
        if is_withheld(known):
            del row["targets"]
        rows.append(row)
    return rows
