"""What `serve` and `infer --prompts` share: one frozen model for many prompts, as configured."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompt_tuning.cli import configurables, session
from prompt_tuning.cli.configurables import Base, Data, Prediction
from prompt_tuning.cli.gin_config import register
from prompt_tuning.data.feature_lengths import feature_lengths as lengths_of
from prompt_tuning.data.tasks.catalogue import get_task, list_tasks
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError
from prompt_tuning.predictor import Predictor
from prompt_tuning.recipes import task_file

CONFIG = "runs/serve.gin"


@register
def predictor(batch_size: int, feature_lengths: Mapping[str, Any]) -> Data:
    """How inputs of any task are cut into batches: the most examples, the longest lengths."""
    if batch_size < 1:
        raise UserError(f"BATCH_SIZE is {batch_size}; it must be at least 1.")
    return Data(
        name="any",
        tasks=(),
        lengths=lengths_of(feature_lengths),
        data_dir=None,
        batch_size=batch_size,
    )


def load(args: argparse.Namespace, *, run: str | None = None) -> tuple[Base, Predictor]:
    """Loads the model that the configuration names; the predictor has no prompts yet.

    Args:
      args: with the gin files and flags.
      run: a run folder whose configuration stands before them.

    Raises:
      UserError: the configuration can't be read, or asks for what can't be served.
    """
    session.load_config(args, run=run, defaults=[CONFIG])
    data = predictor()
    prediction: Prediction = configurables.predict(data)
    if prediction.rank:
        raise UserError(
            "predict.method is 'rank', but prompts of many tasks share the model here. Give the "
            'examples that are to be ranked their "labels", and set --gin.predict.method=greedy.'
        )
    base = session.load_base(data)
    return base, Predictor(
        base.config,
        base.params,
        base.vocabulary,
        batch_size=data.batch_size,
        max_input_length=data.lengths["inputs"],
        decoding=prediction.decoding,
        mesh=base.mesh,
    )


def task_of(path: str | Path, name: str | None) -> Task | None:
    """Returns the task that a prompt is for, to make texts of rows; None where that isn't known.

    A user's own task is told by the run folder's `task.json`, or a copy of it as `NAME.task.json`
    beside the prompt `NAME`.

    Args:
      path: the prompt's file or run folder.
      name: the task that the file itself names.
    """
    path = Path(path)
    copy, folder = path.with_suffix(f".{task_file.FILE}"), path if path.is_dir() else path.parent
    recorded = task_file.read(copy if copy.is_file() else folder / task_file.FILE)
    # A folder may have prompts of other tasks too.
    if recorded is not None and name in (None, recorded.get("name")):
        found = task_file.task_of(recorded)
        if found is not None:
            return found
    return get_task(name) if name in list_tasks() else None


def named_files(pairs: Sequence[str]) -> dict[str, str]:
    """Returns the files of `NAME=FILE ...` by their names.

    Raises:
      UserError: one isn't such a pair, or a name is there twice.
    """
    files: dict[str, str] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise UserError(f"--prompts has '{pair}'; expected NAME=FILE, such as rte=rte.npy.")
        if name in files:
            raise UserError(f"--prompts names '{name}' twice: {files[name]} and {file}.")
        files[name] = file
    return files
