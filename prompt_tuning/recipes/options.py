"""Creates objects from settings with gin's names, such as `data.batch_size`, without gin."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.methods import registry  # noqa: F401 - fills CHOICES
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.factories import CHOICES
from prompt_tuning.recipes import (
    choices,
    frozen_base,
    initializers,  # noqa: F401 - fills CHOICES
    prediction,
    task_data,
    user_tasks,
)
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.gin_text import Reference
from prompt_tuning.recipes.job import Training
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.signatures import PARAMETERS, add, flattened
from prompt_tuning.recipes.task_data import Data

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "layout": frozen_base.layout,
    "frozen_model": flattened(frozen_base.frozen_model, "frozen_model"),
    "vocabulary": frozen_base.vocabulary,
    "data": task_data.data,
    "user_files": user_tasks.user_files,
    "mixture": user_tasks.mixture,
    "predict": flattened(prediction.predict, "predict"),
    "train": flattened(Training, "train"),
}
_REMEMBERED = {
    name: inspect.unwrap(function)
    for name, function in vars(choices).items()
    if callable(function) and hasattr(function, "__wrapped__")
}
for _name, _function in {**CHOICES, **_REMEMBERED, **_FUNCTIONS}.items():
    add(_name, _function)

Settings = Mapping[str, Any]
"""Values by parameter name, `function.parameter`."""


def check_names(settings: Settings) -> None:
    """Checks that settings exist.

    Raises:
      UserError: one doesn't; the message suggests close names.
    """
    known = [f"{section}.{name}" for section in _FUNCTIONS for name in PARAMETERS[section]]
    for name in settings:
        if name not in known:
            raise UserError(
                f"Unknown setting {name!r}; docs/parameters.md lists "
                f"them.{did_you_mean(name, known)}"
            )


def load_base(settings: Settings) -> Base:
    """Loads the frozen model from the settings `frozen_model`, `vocabulary` and `layout`.

    Raises:
      UserError: the model or its vocabulary can't be read, or they don't match.
    """
    frozen = _section(settings, "frozen_model")
    return frozen_base.load_base(
        frozen_base.layout(**_section(settings, "layout")),
        lambda sharding_of: _FUNCTIONS["frozen_model"](**frozen, sharding_of=sharding_of),
        frozen_base.vocabulary(**_section(settings, "vocabulary")),
        {name: settings[name] for name in settings if name.startswith(_OF_BASE)},
    )


BATCHES = Reference("<batches of Python>")
"""Task of a run on user-provided batches, which exist only in Python."""
_OF_BASE = ("frozen_model.", "vocabulary.", "layout.")


def data_of(settings: Settings, task: str | Task | Mixture | None = None) -> Data:
    """Returns the data for the settings `data`; `task` replaces theirs."""
    section = _section(settings, "data")
    if section.get("mixture_or_task") == BATCHES:
        lengths = section["feature_lengths"]
        return dataclasses.replace(
            task_data.of_any_task(section["batch_size"], lengths), name="batches"
        )
    task = _task_of(settings) if task is None else task
    return task_data.data(**{**section, "mixture_or_task": task})


def prediction_of(settings: Settings, data: Data) -> Prediction:
    """Returns the prediction options for the settings `predict`."""
    return _FUNCTIONS["predict"](data, **_section(settings, "predict"))


def training_of(settings: Settings, method: Callable[[Base], Method], optimizer: Any) -> Training:
    """Returns the training options for the settings `train`."""
    objects = {"method": method, "optimizer": optimizer}
    return _FUNCTIONS["train"](**{**_section(settings, "train"), **objects})


def _task_of(settings: Settings) -> str | Task | Mixture:
    given = settings.get("data.mixture_or_task")
    makers = {"@user_files()": user_tasks.user_files, "@mixture()": user_tasks.mixture}
    if isinstance(given, Reference):
        if given not in makers:
            raise UserError(
                f"The task of this run is {given} in gin, which Python can't call; use the "
                "commands for it, such as prompt-tuning evaluate FOLDER."
            )
        return makers[given](**_section(settings, given[1:-2]))
    if given is None:
        raise UserError("The settings name no task; this is not the folder of a training run.")
    return given


def _section(settings: Settings, section: str) -> dict[str, Any]:
    """Returns a function's arguments by parameter."""
    known = PARAMETERS[section]
    return {
        name: settings[f"{section}.{name}"] for name in known if f"{section}.{name}" in settings
    }
