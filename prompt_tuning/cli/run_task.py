"""What a run's folder says of its task: `task.json`, written when training starts.

Commands on a finished run take the labels from it, so they need no training file and rank by the
labels that the prompt was trained with. It also says where the run's files and Python modules were:
a path that the configuration gives relative to another working directory is found again, and a task
whose module can't be imported still has its name, labels and lengths. Run folders without the file
are read from their configuration alone.
"""

import ast
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from prompt_tuning.cli import gin_config
from prompt_tuning.data.tasks.task import Task, list_tasks, register_task
from prompt_tuning.errors import UserError
from prompt_tuning.recipes import task_file

if TYPE_CHECKING:
    from prompt_tuning.recipes.job import Job

_MODEL_PATHS = ("INITIAL_CHECKPOINT_PATH", "VOCABULARY_PATH")
_PATHS = (
    *_MODEL_PATHS,
    "PROMPT_FILE",
    "DATA_DIR",
    "TRAIN_FILE",
    "VALIDATION_FILE",
    "TEST_FILE",
)
"""The macros whose values are files or folders of the user's."""


def described(job: "Job") -> dict[str, Any]:
    """Returns what `task.json` holds, of a job whose configuration is loaded."""
    return task_file.described(
        job,
        paths={name: path for name in _PATHS if (path := task_file.place(gin_config.macro(name)))},
        modules={
            name: str(Path(file).absolute().parents[name.count(".")])
            for name in gin_config.imports(gin_config.text())
            if (file := getattr(sys.modules.get(name), "__file__", None))
        },
    )


def apply(run: str, recorded: Mapping[str, Any], missing: list[str]) -> None:
    """Puts what was recorded into the loaded configuration, where flags don't say otherwise.

    Args:
      run: the run folder.
      recorded: what `task_file.read` returned.
      missing: the run's modules that can't be imported here.

    Raises:
      UserError: the frozen model or its vocabulary is no longer where it was.
    """
    _find_paths(run, recorded.get("paths", {}))
    tasks = recorded["tasks"]
    if len(tasks) == 1 and (template := tasks[0].get("target_template")):
        _bind_labels(tasks[0]["labels"] or [], template)
    for task in tasks if missing else ():
        if task["name"] not in list_tasks():
            _register_absent(run, task, recorded, missing[0])


def _bind_labels(labels: Sequence[str], template: str) -> None:
    """Gives the labels where none are given and targets are still made by the same template."""
    parameters = gin_config.resolved()
    labels_of = {
        name: text for name, (text, _) in parameters.items() if name.endswith("user_files.labels")
    }
    templates = {
        _literal(text)
        for name, (text, _) in parameters.items()
        if name.endswith("user_files.target_template")
    }
    if templates == {template} and set(labels_of.values()) <= {"None"}:
        for name in {"user_files.labels", *labels_of}:
            gin_config.bind(name, list(labels))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None


def _find_paths(run: str, paths: Mapping[str, Mapping[str, str]]) -> None:
    for name, path in paths.items():
        given, place = path["given"], path["place"]
        # Another value is a flag's.
        if gin_config.macro(name) != given or Path(given).expanduser().exists():
            continue
        if Path(place).exists():
            gin_config.bind(name, place)
        elif name in _MODEL_PATHS:
            what = "frozen model" if name == _MODEL_PATHS[0] else "vocabulary"
            raise UserError(
                f"The {what} of {run} was {place} in training and isn't there now; say where it "
                f"is with --gin.{name}=..."
            )


def _register_absent(
    run: str, task: Mapping[str, Any], recorded: Mapping[str, Any], module: str
) -> None:
    """Registers a task whose module isn't here: it has labels, but neither rows nor texts."""
    folder = recorded.get("modules", {}).get(module, "the folder that has it")

    def absent(*_: object) -> NoReturn:
        raise UserError(
            f"The task {task['name']!r} of {run} needs its module {module!r}, which can't be "
            f"imported here; start the command in {folder}, or set PYTHONPATH to that. Texts given "
            'as {"inputs": ...} are answered without it.'
        )

    register_task(
        Task(
            name=task["name"],
            source=absent,
            render=absent,
            text=absent,
            metrics=(absent,),
            labels=None if task["labels"] is None else tuple(task["labels"]),
            lengths=recorded["lengths"],
        )
    )
