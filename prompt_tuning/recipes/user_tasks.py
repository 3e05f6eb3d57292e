"""Tasks from a user's files, mixtures of tasks, and their label words."""

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.data.mixtures import Mixture, user_mixture
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.templates import Template
from prompt_tuning.data.user_files import UserFiles, user_task
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path
from prompt_tuning.settings import Changeable

Files = str | Sequence[str]


def user_files(
    train_file: Changeable[Files],
    input_template: str,
    target_template: str,
    validation_file: Changeable[Files | None] = None,
    test_file: Changeable[Files | None] = None,
    held_out: float = 0.1,
    labels: Any = None,
    label_words: Any = None,
    metric: str | Sequence[str] | None = None,
    name: str | None = None,
) -> Task:
    """A task from a user's own files, one or more per split; see `UserFiles` and `user_task`."""
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    if label_words is not None and not isinstance(label_words, Mapping):
        raise UserError(
            f"user_files.label_words is {label_words!r}; expected a word for each value, such as "
            "{0: 'negative', 1: 'positive'}."
        )
    source = UserFiles(
        files={
            split: tuple(map(as_path, [given] if isinstance(given, str) else given))
            for split, given in files.items()
            if given
        },
        inputs=Template(input_template, "input template"),
        targets=Template(target_template, "target template"),
        held_out=held_out,
        label_words=label_words and {value: str(word) for value, word in label_words.items()},
    )
    return user_task(
        source,
        name=name,
        labels=None if labels is None else words("user_files.labels", labels),
        metric=metric,
    )


def mixture(
    tasks: Sequence[str | Task], rates: Sequence[float | int] | None = None, name: str = "mixture"
) -> Mixture:
    """A mixture of tasks, given by name or made by `user_files`.

    `rates` are relative shares of a batch; None is proportional to size, as in T5.
    """
    return user_mixture(name, tasks, rates)


def task_labels(task: Task) -> Sequence[str]:
    """Returns the label words of a task, to initialize a prompt."""
    if not task.labels:
        raise UserError(
            f"The answers of {task.name} are free text, not labels: use "
            "--gin_file=prompts/sampled_vocabulary.gin, or give --gin.user_files.labels=[...]."
        )
    return task.labels


def words(name: str, given: Any) -> tuple[str, ...]:
    """Returns the words of a setting: a list's items, or the comma-separated parts of a string.

    Raises:
      UserError: it is neither a list nor a string.
    """
    if isinstance(given, str):
        return tuple(word.strip() for word in given.split(",") if word.strip())
    if not isinstance(given, list | tuple):
        raise UserError(f"{name} is {given!r}; expected a list of words, such as ['good', 'bad'].")
    return tuple(map(str, given))
