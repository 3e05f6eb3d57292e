"""Mixtures of tasks in proportion to their size, as T5 mixes them (Raffel et al., 2020, 3.5.2).

A mixture is named wherever a task may be (`MIXTURE_OR_TASK_NAME`): `get_tasks` returns one task
or several. Drawing from several is `batching.BatchStream` with `proportional_rates`; SeqIO's
mixtures of the same names are made in `seqio_tasks.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from prompt_tuning.data.tasks.superglue import SUPERGLUE_TASKS
from prompt_tuning.data.tasks.task import Task, get_task, list_tasks
from prompt_tuning.errors import UserError, did_you_mean

T5_MAXIMUM = 2**19
"""T5's artificial limit on a task's size; no task of SuperGLUE reaches it."""

MIXTURES: Mapping[str, tuple[str, ...]] = {
    f"{benchmark}{suffix}": tuple(f"{benchmark}_{name}{suffix}" for name in SUPERGLUE_TASKS)
    for benchmark in ("superglue", "tinyworld")
    for suffix in ("", "_with_name")
}
"""Each mixture's tasks."""


def proportional_rates(
    num_examples: Sequence[int], maximum: int = T5_MAXIMUM, *, normalize: bool = True
) -> Float[np.ndarray, "tasks"]:
    """Returns the share of each task: its training examples, at most `maximum`.

    Training examples are rendered ones: one an answer for ReCoRD, the positive ones for WSC. On
    the official files these are the rates of T5's `super_glue_v102_proportional`.
    """
    rates = np.minimum(np.asarray(num_examples, np.float64), maximum)
    return rates / rates.sum() if normalize else rates


def get_tasks(name: str) -> tuple[Task, ...]:
    """Returns the tasks of a mixture, or the one task of that name.

    Raises:
        UserError: there is neither; the closest names are suggested.
    """
    if name in MIXTURES:
        return tuple(get_task(member) for member in MIXTURES[name])
    known = (*MIXTURES, *list_tasks())
    if name not in known:
        raise UserError(f"Unknown task or mixture {name!r}.{did_you_mean(name, known)}")
    return (get_task(name),)
