"""Prompts that teach another one: each of its own task of a mixture (`train.teachers`)."""

from collections.abc import Sequence

import jax.numpy as jnp

from prompt_tuning.errors import UserError
from prompt_tuning.models.injection import Injection
from prompt_tuning.models.stacking import batch_injections
from prompt_tuning.recipes.frozen_base import Base
from prompt_tuning.recipes.task_data import Data


def teachers(base: Base, data: Data, paths: Sequence[str]) -> Injection:
    """Returns the prompts of the files that `train.teachers` lists, one for each task.

    Raises:
      UserError: there are more or fewer of them, or one was trained on another task.
    """
    if len(paths) != len(data.tasks):
        raise UserError(
            f"train.teachers lists {len(paths)} prompts for the {len(data.tasks)} tasks of "
            f"{data.name}; give one for each of {', '.join(task.name for task in data.tasks)}."
        )
    found = []
    for task, path in zip(data.tasks, paths, strict=True):
        prompt, metadata = base.load_prompt(path)
        if metadata.task not in (None, task.name):
            raise UserError(
                f"The teacher of {task.name} is {path}, which was trained on {metadata.task}; list "
                "train.teachers in the order of the mixture's tasks."
            )
        if metadata.target_sentinel not in (None, data.target_sentinel):
            raise UserError(
                f"The teacher {path} was trained with data.target_sentinel="
                f"{metadata.target_sentinel} and is to teach with {data.target_sentinel}; set one."
            )
        found.append(Injection(encoder_prompt=jnp.asarray(prompt)[None]))
    return batch_injections(found)
