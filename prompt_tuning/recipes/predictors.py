"""Predictors on a loaded model, and the default way to answer a task."""

import dataclasses

from prompt_tuning.evaluation.predictor import Predictor
from prompt_tuning.models.injection import Injection
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.scoring import labels_to_rank, rank_options
from prompt_tuning.recipes.task_data import Data


def make_predictor(base: Base, data: Data, prediction: Prediction) -> Predictor:
    """Returns a predictor without prompts, with the lengths and the batch size of `data`."""
    # The predictor adds the sentinel itself, for prompts that have one.
    longest = prediction.decoding.max_length - data.target_sentinel
    return Predictor(
        base.config,
        base.params,
        base.vocabulary,
        batch_size=data.batch_size,
        max_input_length=data.lengths["inputs"],
        decoding=dataclasses.replace(prediction.decoding, max_length=longest),
        ranking=rank_options(base, prediction),
        seed=prediction.seed,
        mesh=base.mesh,
        model=base.model,
    )


def default_labels(data: Data, prediction: Prediction) -> tuple[str, ...]:
    """Returns the labels to rank by default: the task's, if it has any.

    Without a task there are none.

    Raises:
      UserError: rank classification is requested for a task without labels.
    """
    if not data.tasks:
        return ()
    labels = {task.labels for task in data.tasks}
    if prediction.decoding.method == "greedy" and len(labels) == 1 and any(labels):
        prediction = dataclasses.replace(prediction, rank=True)
    return labels_to_rank(data, data.tasks[0], prediction)


def add_trained(
    predictor: Predictor, name: str, injection: Injection, data: Data, prediction: Prediction
) -> None:
    """Adds an adapter trained on `data`, with the default way to answer (`default_labels`)."""
    predictor.add(
        name,
        injection,
        task=data.tasks[0] if data.tasks else None,
        labels=default_labels(data, prediction),
        target_sentinel=data.target_sentinel,
    )
