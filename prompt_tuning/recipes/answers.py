"""Answers to texts and rows with what was trained."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.questions import Question, text_of
from prompt_tuning.data.shortening import fit_inputs
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.vocabularies import EOS_ID, PAD_ID
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.evaluator import Inject, predict
from prompt_tuning.parallel.mesh import shard_batch
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.scoring import predictor_for
from prompt_tuning.recipes.task_data import Data

_SHORTEST = 16
"""The shortest padded input, in tokens; longer ones are padded to it times a power of two."""


def answer(
    base: Base,
    data: Data,
    prediction: Prediction,
    inject: Inject,
    rows: Sequence[str | Mapping[str, Any]],
) -> list[str]:
    """Returns the answer to each text, or to what the task's template makes of a row.

    Inputs longer than `data.lengths` are cut.

    Raises:
      UserError: a row lacks a column, is empty, or is neither a text nor a row.
    """
    task = fit_inputs(data.tasks[0], base.vocabulary, data.lengths["inputs"])
    ids = [
        base.vocabulary.encode(_text_of(row, f"row {number}", task))
        for number, row in enumerate(rows, start=1)
    ]
    predictor = predictor_for(base, data, task, prediction)
    starts = range(0, len(ids), data.batch_size)
    batches = [text_batch(ids[start : start + data.batch_size], base, data) for start in starts]
    found: list[str] = []
    for number, batch in enumerate(batches):
        seed = prediction.seed + number
        answers = predict(predictor, base.params, inject, [batch], seed=seed)
        found += [text for _, text in sorted(answers)]
    return found


def _text_of(row: str | Mapping[str, Any], where: str, task: Task) -> str:
    if isinstance(row, str):
        return row
    if not isinstance(row, Mapping):
        raise UserError(f"{where} is {row!r}; expected a text, or a dict of values by column.")
    text = text_of(Question(row=dict(row), where=where), task)
    if text is None:
        raise UserError(f"{where} has no text to answer.")
    return text


def text_batch(
    inputs: Sequence[Sequence[int]], base: Base, data: Data
) -> tuple[dict[str, Any], range]:
    """Returns token ids as a batch of `batch_size` rows, cut or padded to one of few lengths."""
    limit = data.lengths["inputs"]
    rows = [[*ids[: limit - 1], EOS_ID] for ids in inputs]
    length = _SHORTEST
    while length < max(map(len, rows)):
        length *= 2
    tokens = np.full((data.batch_size, min(length, limit)), PAD_ID, np.int32)
    tokens[:, 0] = EOS_ID  # rows without a text are ignored, but must not be empty
    for place, row in zip(tokens, rows, strict=False):
        place[: len(row)] = row
    return shard_batch({"encoder_input_tokens": tokens}, base.mesh), range(len(rows))
