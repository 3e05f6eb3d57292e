"""The functions and dataclasses that gin can configure, under gin's names.

The library (`recipes/`, `training/`) takes plain values and doesn't depend on gin; here names in
gin files are bound to its arguments. Methods and initializers need the frozen model and its
vocabulary, so gin configures functions of both (`Base`):

    train.method = @soft_prompt              # soft_prompt(base) -> a method
    soft_prompt.initializer = @class_label   # class_label(base) -> an initializer
"""

import dataclasses
import os
from collections.abc import Callable

import jax

from prompt_tuning.cli.gin_config import forget
from prompt_tuning.cli.registry import register, register_per_member
from prompt_tuning.errors import at_least
from prompt_tuning.methods import registry  # noqa: F401 - fills CHOICES
from prompt_tuning.methods.factories import watch_choices
from prompt_tuning.parallel.processes import ProcessOptions, from_environment
from prompt_tuning.recipes import (
    frozen_base,
    initializers,  # noqa: F401 - fills CHOICES
    prediction,
    pretraining,
    task_data,
    user_tasks,
)
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.job import Training
from prompt_tuning.recipes.prediction import Prediction
from prompt_tuning.recipes.task_data import Data
from prompt_tuning.settings import Fields, Free
from prompt_tuning.training import optimizers
from prompt_tuning.training.halving import Halving

__all__ = ["Base", "Data", "Prediction", "Training"]

layout = register(frozen_base.layout)
frozen_model = register(frozen_base.frozen_model)
vocabulary = register(frozen_base.vocabulary)

data = register(task_data.data)
predictor = register(task_data.of_any_task, name="predictor")
user_files = register_per_member(user_tasks.user_files)
mixture = register_per_member(user_tasks.mixture)
task_labels = register_per_member(user_tasks.task_labels)

predict = register(prediction.predict)

watch_choices(register)

new_model = register(pretraining.new_model)
corpus = register(pretraining.corpus)
objective: Callable[..., pretraining.Objective] = register(pretraining.Objective, name="objective")

adafactor = register(optimizers.adafactor)
adamw = register(optimizers.adamw)
constant = register(optimizers.constant)
linear_warmup = register(optimizers.linear_warmup)
rsqrt_decay = register(optimizers.rsqrt_decay)
cosine_decay = register(optimizers.cosine_decay)

train: Callable[..., Training] = register(Training, name="train")
"""A training run; the options are documented in `TrainOptions`, `LossOptions` and `Training`."""

successive_halving: Callable[..., Halving] = register(Halving, name="successive_halving")
"""When `train --tune` drops members; see `Halving`."""


@register
def processes(given: Fields[ProcessOptions]) -> ProcessOptions | None:
    """Returns the distributed setup from arguments or environment; None for a single process.

    The arguments are removed from the configuration: they describe this process, not the run.
    """
    forget("COORDINATOR_ADDRESS", "NUM_PROCESSES", "PROCESS_ID")
    found = from_environment(os.environ) if given.coordinator is None else given
    return found and dataclasses.replace(found, heartbeat_seconds=given.heartbeat_seconds)


@register
def population(
    places: Free[int | None] = None, side_by_side: Free[bool | None] = None
) -> tuple[int, bool]:
    """How the members of a POPULATION train.

    Args:
      places: members that train at a time; the others wait. None is 4 on a TPU, where a member's
        step takes fewest cycles so (docs/accelerators.md), and 16 elsewhere.
      side_by_side: run their steps in one program instead of in turns; None is True, except on a
        single CPU, where it isn't faster (`benchmarks/population.py`).

    Returns:
      `places` and `side_by_side`, resolved.
    """
    if places is None:
        places = 4 if jax.default_backend() == "tpu" else 16
    at_least(1, {"population.places": places})
    if side_by_side is None:
        side_by_side = jax.default_backend() != "cpu" or jax.device_count() > 1
    return places, side_by_side
