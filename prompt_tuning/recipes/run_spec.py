"""A run of the Python API: its settings under gin's names, and its folder.

The arguments of `train` are recorded in `settings.json` and `config.gin` under the names that a gin
file would use. So the commands can read the folder, and runs of Python and of the commands are
compared by their settings only.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax

from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.files import FilePath
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.registry import describe, method_name
from prompt_tuning.recipes import identity, options, signatures, task_file
from prompt_tuning.recipes.choices import adafactor, settings_of
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.gin_text import Reference, macros, with_macros
from prompt_tuning.recipes.job import Job, Training
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.say import say
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.settings import Mark
from prompt_tuning.training.run_folder import RunFolder

_HEAD = "# Written by prompt_tuning.train; the commands read it: prompt-tuning evaluate FOLDER\n\n"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSpec:
    """A run's settings under gin's names, and the objects created from them."""

    values: Mapping[str, Any]
    data: Data
    prediction: Prediction
    training: Training


def run_spec(
    base: Base,
    method: Callable[[Base], Method],
    task: str | Task | Mixture,
    folder: FilePath,
    arguments: Mapping[str, Any],
) -> RunSpec:
    """Returns the specification for the arguments of `train`.

    Args:
      base: the frozen model.
      method: the method to train.
      task: a name or a task (rows are converted before); or `options.BATCHES`.
      folder: the run folder.
      arguments: the other arguments of `train`, by name.
    """
    optimizer = arguments["optimizer"]
    optimizer = adafactor(arguments["learning_rate"]) if optimizer is None else optimizer
    settings = arguments["settings"] or {}
    options.check_names(settings)
    of_task = ("batch_size", "lengths", "data_dir", "predict")
    values = {
        **task_values(base, task, **{name: arguments[name] for name in of_task}),
        "predict.split": "validation",
        "train.folder": str(folder),
        **settings_of("train.method", method),
        **settings_of("train.optimizer", optimizer),
        "train.train_steps": arguments["steps"],
        **{
            f"train.{name}": arguments[name]
            for name in ("seed", "eval_every", "checkpoint_every", "log_every", "patience")
        },
        **settings,
    }
    data = options.data_of(values, task)
    return RunSpec(
        values=values,
        data=data,
        prediction=options.prediction_of(values, data),
        training=options.training_of(values, method, optimizer),
    )


def task_values(
    base: Base,
    task: str | Task | Mixture,
    batch_size: int,
    lengths: Mapping[str, int] | None,
    data_dir: str | FilePath | None,
    predict: str,
) -> dict[str, Any]:
    """Returns the settings of the frozen model, the data and the prediction."""
    return {
        **base.settings,
        **settings_of("data.mixture_or_task", task),
        "data.batch_size": batch_size,
        **({} if lengths is None else {"data.feature_lengths": dict(lengths)}),
        "data.data_dir": None if data_dir is None else str(data_dir),
        "predict.method": predict,
    }


def chosen(job: Job, values: Mapping[str, Any]) -> dict[str, str]:
    """Returns the names of the method and the optimizer printed at the start of a run."""
    return {
        name: str(_written(f"train.{name}", values[f"train.{name}"], job)).strip("@()<>")
        for name in ("method", "optimizer")
    }


def open_folder(
    job: Job,
    values: Mapping[str, Any],
    *,
    overwrite: bool = False,
    of_all: FilePath | None = None,
    contents: Mapping[str, str] | None = None,
) -> RunFolder:
    """Creates the run folder, or reopens one with the same settings and contents.

    Args:
      job: the run.
      values: its settings.
      overwrite: start over.
      of_all: the folder of a population whose first member is the job; None opens the job's own.
      contents: hashes of data that isn't in the settings.
    """
    texts = _texts(values, job)
    given = {**identity.file_contents(texts), **job.contents}
    mark = signatures.mark if of_all is None else _mark_of_population
    folder = RunFolder.open(
        job.training.path if of_all is None else of_all,
        settings={**_identity(texts), **given, **(contents or {})},
        config_text=config_text(values, job),
        compare=functools.partial(identity.compare, mark=mark),
        train_steps=job.training.options.train_steps if of_all is None else None,
        overwrite=overwrite,
        population=of_all is not None,
    )
    paths = {
        macros()[name]: place for name in _PATHS if (place := task_file.place(values.get(name)))
    }
    if job.data.tasks:
        folder.write_json(task_file.FILE, task_file.described(job, paths=paths, modules={}))
    for note in folder.notes:
        say(note)
    return folder


def _mark_of_population(setting: str) -> Mark:
    """Returns a setting's mark for a population; members compare per-member settings."""
    known = signatures.mark(setting)
    return dataclasses.replace(known, free=known.free or known.per_member)


def _texts(values: Mapping[str, Any], job: Job) -> dict[str, str]:
    return with_macros({name: _written(name, value, job) for name, value in values.items()})


def config_text(values: Mapping[str, Any], job: Job) -> str:
    """Returns the settings as the text of `config.gin`."""
    texts = _texts(values, job)
    known = {name: text for name, text in texts.items() if not text.startswith(_NOT_IN_GIN)}
    return _HEAD + "".join(f"{name} = {text}\n" for name, text in known.items())


_PATHS = (
    "frozen_model.checkpoint",
    "vocabulary.path",
    "data.data_dir",
    "user_files.train_file",
    "user_files.validation_file",
    "user_files.test_file",
)
"""The settings that name the user's files and folders."""

_NOT_IN_GIN = "<"
"""Prefix of recorded values that exist only in Python."""


def _written(name: str, value: Any, job: Job) -> Any:
    """Returns a setting's value as recorded, a description if it exists only in Python."""
    if isinstance(value, Task | Mixture):
        return value.name
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, FilePath):
        return str(value)
    if name == "train.method" and not isinstance(value, Reference):
        return Reference(f"{_NOT_IN_GIN}{method_name(job.method)} {describe(job.method)}>")
    if callable(value) or isinstance(value, optax.GradientTransformation):
        return Reference(f"{_NOT_IN_GIN}{type(value).__name__} of Python>")
    return value


def _identity(texts: Mapping[str, str]) -> dict[str, str]:
    """Returns the settings that affect results, and their macros."""
    free = {name for name in texts if "." in name and signatures.mark(name).free}
    kept = {name: text for name, text in texts.items() if name not in free}
    used = {text.removeprefix("%") for name, text in kept.items() if "." in name}
    return {name: text for name, text in kept.items() if "." in name or name in used}
