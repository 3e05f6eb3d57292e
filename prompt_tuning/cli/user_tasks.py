"""What gin can configure of a user's own data; see `configurables.py`, which registers it."""

from collections.abc import Sequence

from prompt_tuning.cli.gin_config import register
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.templates import Template
from prompt_tuning.data.text_files import as_path
from prompt_tuning.data.user_files import UserFiles, user_task
from prompt_tuning.errors import UserError


@register
def user_files(
    train_file: str,
    input_template: str,
    target_template: str,
    validation_file: str | None = None,
    test_file: str | None = None,
    held_out: float = 0.1,
    labels: Sequence[str] | None = None,
    metric: str | None = None,
    name: str | None = None,
) -> Task:
    """The task of a user's own CSV, TSV or jsonl files; see `UserFiles` and `user_task`."""
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    source = UserFiles(
        files={split: as_path(file) for split, file in files.items() if file},
        inputs=Template(input_template, "input template"),
        targets=Template(target_template, "target template"),
        held_out=held_out,
    )
    return user_task(source, name=name, labels=labels, metric=metric)


@register
def task_labels(task: Task) -> Sequence[str]:
    """The label words of a task, for a prompt that starts from them."""
    if not task.labels:
        raise UserError(
            f"The answers of {task.name} are free text, not labels: take "
            "--gin_file=prompts/sampled_vocabulary.gin, or give --gin.user_files.labels=[...]."
        )
    return task.labels
