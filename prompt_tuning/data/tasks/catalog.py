"""All tasks by name: the shipped ones, which importing this module registers, and the user's own.

`task.register_task` adds a task (docs/adding_a_task.md).
"""

from prompt_tuning.data.tasks import (  # noqa: F401  they register their tasks
    dpr,
    glue,
    question_answering,
    summarization,
    superglue,
    tinyworld_transfer,
)
from prompt_tuning.data.tasks.task import TASKS, Task
from prompt_tuning.errors import UserError, did_you_mean


def get_task(name: str) -> Task:
    """Returns the task with this name.

    Raises:
      UserError: there is none; suggests the closest names.
    """
    if name not in TASKS:
        raise UserError(f"Unknown task {name!r}.{did_you_mean(name, TASKS)}")
    return TASKS[name]


def list_tasks() -> tuple[str, ...]:
    """Returns the names of all tasks, sorted."""
    return tuple(sorted(TASKS))
