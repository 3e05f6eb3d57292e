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
from typing import Any, NoReturn

from prompt_tuning.cli import gin_config
from prompt_tuning.data.tasks.catalogue import list_tasks
from prompt_tuning.data.tasks.task import Task, register_task
from prompt_tuning.data.text_files import as_path
from prompt_tuning.data.user_files import task_name
from prompt_tuning.errors import UserError
from prompt_tuning.recipes import task_file
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
_OWN_FILES = ("user_files.train_file", "user_files.validation_file", "user_files.test_file")
"""What the parameters end with that name such files without a macro, as in mixtures."""


def described(job: Job) -> dict[str, Any]:
    """Returns what `task.json` holds, of a job whose configuration is loaded."""
    return task_file.described(
        job,
        paths=places(),
        modules={
            name: str(Path(file).absolute().parents[name.count(".")])
            for name in gin_config.imports(gin_config.text())
            if (file := getattr(sys.modules.get(name), "__file__", None))
        },
    )


def places() -> dict[str, dict[str, Any]]:
    """Returns where the user's files and folders are that the loaded configuration names."""
    return {name: place for name, given in files().items() if (place := task_file.place(given))}


def files() -> dict[str, Any]:
    """Returns the values of macros and parameters that may be files or folders of the user's."""
    own = {
        name: _literal(text)
        for name, (text, macros) in gin_config.resolved().items()
        if name.endswith(_OWN_FILES) and not macros
    }
    return {name: gin_config.macro(name) for name in _PATHS} | own


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
    _bind_labels(tasks)
    for task in tasks if missing else ():
        if task["name"] not in list_tasks():
            _register_absent(run, task, recorded, missing[0])


def _bind_labels(tasks: Sequence[Mapping[str, Any]]) -> None:
    """Gives the labels where none are given and targets are still made by the same template.

    The tasks of a mixture are told apart by their names.
    """
    parameters = gin_config.resolved()
    ending = "user_files.train_file"
    for scope in [name.removesuffix(ending) for name in parameters if name.endswith(ending)]:

        def value(parameter: str, scope: str = scope) -> Any:
            names = (f"{scope}user_files.{parameter}", f"user_files.{parameter}")
            return next(
                (_literal(parameters[name][0]) for name in names if name in parameters), None
            )

        given = value("train_file")
        first = given if isinstance(given, str) else (given or [""])[0]
        name = task_name(value("name"), as_path(first))
        for task in tasks:
            if (
                value("labels") is None
                and task.get("target_template") == value("target_template") is not None
                and (len(tasks) == 1 or task["name"] == name)
            ):
                gin_config.bind(f"{scope}user_files.labels", list(task["labels"] or []))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return None


def _find_paths(run: str, paths: Mapping[str, Mapping[str, Any]]) -> None:
    now = files()
    for name, path in paths.items():
        given, place = path["given"], path["place"]
        value = now.get(name)
        # Another value is a flag's.
        if (list(value) if isinstance(value, tuple) else value) != given:
            continue
        if isinstance(given, list):
            pairs = zip(given, place, strict=True)
            found = [one if task_file.absolute(one) else there for one, there in pairs]
            gin_config.bind(name, found)
        elif task_file.absolute(given):
            continue
        elif Path(place).exists():
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
