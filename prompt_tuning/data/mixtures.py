"""Mixtures of tasks in proportion to their size, as T5 mixes them (Raffel et al., 2020, 3.5.2).

A mixture's name may be used like a task's (`MIXTURE_OR_TASK_NAME`): `get_tasks` returns one task or
several. `batching.BatchStream` samples from them with `proportional_rates`; SeqIO's mixtures of the
same names are in `seqio_tasks.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.data.tasks.glue import GLUE_TASKS
from prompt_tuning.data.tasks.question_answering import MRQA_TASKS
from prompt_tuning.data.tasks.superglue import SUPERGLUE_TASKS
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.errors import UserError, did_you_mean

T5_MAXIMUM = 2**19
"""T5's artificial limit on a task's size; no task of SuperGLUE reaches it."""


def _mixtures(suffix: str) -> dict[str, tuple[str, ...]]:
    """Returns the mixtures of tasks with T5's names in their text, or of those without."""
    superglue = tuple(f"superglue_{name}{suffix}" for name in SUPERGLUE_TASKS)
    dpr = f"dpr{suffix}"
    return {
        f"superglue{suffix}": superglue,
        f"superglue_and_dpr{suffix}": (*superglue, dpr),
        f"superglue_wsc_and_dpr{suffix}": (f"superglue_wsc{suffix}", dpr),
        f"tinyworld{suffix}": tuple(f"tinyworld_{name}{suffix}" for name in SUPERGLUE_TASKS),
        f"glue{suffix}": tuple(f"glue_{name}{suffix}" for name in GLUE_TASKS),
    }


MIXTURES: Mapping[str, tuple[str, ...]] = {
    **_mixtures(""),
    **_mixtures("_with_name"),
    "mrqa": tuple(f"mrqa_{name}" for name in MRQA_TASKS),
}
"""Tasks of each mixture. `mrqa` is for scoring only: its tasks have no training split."""


def proportional_rates(
    num_examples: Sequence[int], maximum: int = T5_MAXIMUM, *, normalize: bool = True
) -> Float[np.ndarray, "tasks"]:
    """Returns the share of each task, in proportion to its examples, capped at `maximum`.

    Examples are counted as rendered for training: one per answer for ReCoRD, only the positive ones
    for WSC. For the official files, rates equal those of T5's `super_glue_v102_proportional`.
    """
    rates = np.minimum(np.asarray(num_examples, np.float64), maximum)
    return rates / rates.sum() if normalize else rates


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Tasks that are trained on together.

    Attributes:
      name: its name in a run.
      tasks: its tasks, with different names.
      rates: the share of each; proportional to their sizes if None.
    """

    name: str
    tasks: tuple[Task, ...]
    rates: tuple[float | int, ...] | None = None


def mixture_of(given: str | Task | Mixture) -> Mixture:
    """Returns the mixture given as such, as a task, or by name; raises as `get_tasks`."""
    if isinstance(given, str):
        return Mixture(name=given, tasks=get_tasks(given))
    return Mixture(name=given.name, tasks=(given,)) if isinstance(given, Task) else given


def user_mixture(
    name: str, tasks: Sequence[str | Task], rates: Sequence[float | int] | None = None
) -> Mixture:
    """Returns a mixture of tasks, each given as such or by name.

    Raises:
      UserError: there are no tasks, two have the same name, or a rate isn't positive.
    """
    found = tuple(
        member
        for task in tasks
        for member in ((task,) if isinstance(task, Task) else get_tasks(task))
    )
    names = [task.name for task in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"The mixture has two tasks named {twice[0]!r}; set their names with user_files.name."
        )
    if not found:
        raise UserError("The mixture has no tasks; set mixture.tasks.")
    if rates is not None and (len(rates) != len(found) or not all(rate > 0 for rate in rates)):
        raise UserError(
            f"The mixture's rates are {list(rates)}; expected a number above 0 for each of "
            f"{', '.join(names)}."
        )
    return Mixture(name=name, tasks=found, rates=None if rates is None else tuple(rates))


def get_tasks(name: str) -> tuple[Task, ...]:
    """Returns the tasks of the mixture, or the one task, of this name.

    Raises:
      UserError: there is neither; suggests the closest names.
    """
    if name in MIXTURES:
        return tuple(get_task(member) for member in MIXTURES[name])
    known = (*MIXTURES, *list_tasks())
    if name not in known:
        raise UserError(
            f"Unknown task or mixture {name!r}.{did_you_mean(name, known)} For a task of your "
            "own, add the gin file that imports its module: --gin_file=..."
        )
    return (get_task(name),)
