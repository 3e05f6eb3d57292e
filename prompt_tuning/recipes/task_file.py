"""`task.json` of a run folder: the task's labels, templates, lengths and file locations."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

from prompt_tuning import files
from prompt_tuning.buckets import in_bucket
from prompt_tuning.data.tasks.catalog import get_task, list_tasks
from prompt_tuning.data.tasks.task import Task
from prompt_tuning.data.templates import Template
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, as_path
from prompt_tuning.json_text import parse_json
from prompt_tuning.recipes.job import Job

FILE = "task.json"


def described(
    job: Job, *, paths: Mapping[str, Mapping[str, Any]], modules: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the contents of `task.json`.

    Args:
      job: the run.
      paths: locations (`place`) of the user's files and folders, by macro or parameter.
      modules: folders of the user's Python modules, by module name.
    """
    data, base = job.data, job.base
    return {
        "name": data.name,
        "tasks": [_described(task) for task in data.tasks],
        "lengths": dict(data.lengths),
        "target_sentinel": data.target_sentinel,
        "model": base.config.name,
        "vocabulary_hash": base.vocabulary.hash,
        "paths": dict(paths),
        "modules": dict(modules),
    }


def place(given: Any) -> dict[str, Any] | None:
    """Returns the locations of the files or folders that a value names, if any."""
    paths = [given] if isinstance(given, str) else given or []
    places = [absolute(path) if isinstance(path, str) and path else None for path in paths]
    if not any(places):
        return None
    if isinstance(given, str):
        return {"given": given, "place": places[0]}
    found = [place or path for path, place in zip(paths, places, strict=True)]
    return {"given": list(given), "place": found}


def absolute(path: str) -> str | None:
    """Returns the absolute path of an existing file or folder, or one in a bucket; else None."""
    found = as_path(path)
    return str(files.absolute(found)) if in_bucket(found) or found.exists() else None


def _described(task: Task) -> dict[str, Any]:
    names = [getattr(getattr(each, "func", each), "__name__", "<") for each in task.metrics]
    inputs, targets = task.templates or (None, None)
    return {
        "name": task.name,
        "labels": None if task.labels is None else list(task.labels),
        "input_template": inputs,
        "target_template": targets,
        "columns": list(task.columns),
        "shorten": task.shorten,
        "metrics": [name for name in names if not name.startswith("<")],
    }


def read(run: str | FilePath) -> dict[str, Any] | None:
    """Returns the contents of a run's `task.json`, or None for older runs without it.

    Args:
      run: the run folder, or the file (or a copy), whose name ends in `task.json`.

    Raises:
      UserError: it is damaged.
    """
    path = as_path(run)
    if not path.name.endswith(FILE):
        path /= FILE
    try:
        found = parse_json(path.read_bytes())
        if not isinstance(found, dict) or not isinstance(found.get("tasks"), list):
            raise ValueError("it doesn't describe a task")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged ({error}); restore it, or remove it to read the task from the "
            "training data again."
        ) from error
    return found


def task_of(recorded: Mapping[str, Any]) -> Task | None:
    """Returns a task without rows that formats texts with the recorded template, if any."""
    first, *others = recorded["tasks"]
    if others or not first.get("input_template"):
        return None
    why = f"Only the templates of {first['name']!r} are known, not its files."
    return without_rows(first, recorded["lengths"], why)


def without_rows(task: Mapping[str, Any], lengths: Mapping[str, int], why: str) -> Task:
    """Returns a recorded task whose rows raise a `UserError` with the reason `why`.

    It has the recorded labels and, if any, template.
    """

    def absent(*_: object) -> NoReturn:
        raise UserError(why)

    template = task.get("input_template")
    return Task(
        name=task["name"],
        source=absent,
        render=absent,
        text=Template(template, "input template").render if template else absent,
        templates=(template, task["target_template"]) if template else None,
        metrics=(absent,),
        labels=None if task["labels"] is None else tuple(task["labels"]),
        lengths=lengths,
        shorten=task.get("shorten"),
    )


def task_of_prompt(path: str | FilePath, name: str | None) -> Task | None:
    """Returns a prompt's task, to format rows, or None if unknown.

    A user's own task, and the column truncated by `data.shorten`, are recorded in the run folder's
    `task.json`, or in a copy of it, `NAME.task.json`, next to the prompt `NAME`.

    Args:
      path: the prompt's file or run folder.
      name: the task name recorded in the prompt's file.
    """
    path = as_path(path)
    copy, folder = path.with_suffix(f".{FILE}"), path if path.is_dir() else path.parent
    recorded = read(copy if copy.is_file() else folder / FILE)
    known = get_task(name) if name in list_tasks() else None
    # A folder may also contain prompts of other tasks.
    if recorded is None or name not in (None, recorded.get("name")):
        return known
    if found := task_of(recorded):
        return found
    # Older runs don't record it; use the task's own.
    shorten = recorded["tasks"][0].get("shorten", known and known.shorten)
    return known and dataclasses.replace(known, shorten=shorten)
