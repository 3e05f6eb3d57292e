"""Records a run's task in its folder, in `task.json`, and restores it from there.

Commands on a finished run read the labels from it, so they don't need the training file and rank
the labels that the prompt was trained with. The file also records the locations of the run's files
and Python modules: paths relative to another working directory are resolved, and a task whose
module can't be imported still has its name, labels and lengths. For run folders without the file,
only the configuration is used.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.cli import gin_config
from prompt_tuning.data.tasks.catalog import list_tasks
from prompt_tuning.data.tasks.task import register_task
from prompt_tuning.data.user_files import task_name
from prompt_tuning.errors import UserError
from prompt_tuning.files import as_path
from prompt_tuning.recipes import task_file
from prompt_tuning.recipes.gin_text import literal
from prompt_tuning.recipes.job import Job

_MODEL_PATHS = {"INITIAL_CHECKPOINT_PATH": "frozen model", "VOCABULARY_PATH": "vocabulary"}
_FILES = ("TRAIN_FILE", "VALIDATION_FILE", "TEST_FILE")
_PATHS = (*_MODEL_PATHS, "PROMPT_FILE", "DATA_DIR", *_FILES)
"""The macros whose values are the user's files or folders."""
_OWN_FILES = ("user_files.train_file", "user_files.validation_file", "user_files.test_file")
"""Suffixes of parameters that name such files without a macro, as in mixtures."""


def described(job: Job) -> dict[str, Any]:
    """Returns the contents of `task.json` for a job whose configuration is loaded."""
    return task_file.described(
        job,
        paths=places(),
        modules={
            name: str(file.absolute().parents[name.count(".")])
            for name, file in gin_config.imported_files().items()
        },
    )


def places() -> dict[str, dict[str, Any]]:
    """Returns the locations of the user's files and folders in the loaded configuration."""
    return {name: place for name, given in files().items() if (place := task_file.place(given))}


def files() -> dict[str, Any]:
    """Returns the values of macros and parameters that may be the user's files or folders."""
    own = {
        name: literal(text)
        for name, (text, macros) in gin_config.resolved().items()
        if name.endswith(_OWN_FILES) and not macros
    }
    return {name: gin_config.macro(name) for name in _PATHS} | own


def apply(run: str, recorded: Mapping[str, Any], missing: list[str]) -> None:
    """Applies recorded values to the loaded configuration, unless flags override them.

    Args:
      run: the run folder.
      recorded: the result of `task_file.read`.
      missing: the run's modules that can't be imported here.

    Raises:
      UserError: the frozen model or its vocabulary has moved.
    """
    now = files()
    for name, path in recorded.get("paths", {}).items():
        given = now.get(name)
        # A different value was set by a flag.
        if (list(given) if isinstance(given, tuple) else given) == path["given"]:
            _find(run, name, path["given"], path["place"])
    _bind_labels(recorded["tasks"])
    for task in recorded["tasks"] if missing else ():
        if task["name"] not in list_tasks():
            module = missing[0]
            folder = recorded.get("modules", {}).get(module, "the folder that has it")
            why = (
                f"The task {task['name']!r} of {run} needs its module {module!r}, which can't be "
                f"imported here; run the command in {folder}, or set PYTHONPATH to it. Texts "
                'given as {"inputs": ...} don\'t need it.'
            )
            register_task(task_file.without_rows(task, recorded["lengths"], why))


def _find(run: str, name: str, given: str | list[str], place: Any) -> None:
    """Binds files or folders to their paths in training, unless they exist here."""
    if isinstance(given, list):
        pairs = zip(given, place, strict=True)
        gin_config.bind(name, [one if task_file.absolute(one) else there for one, there in pairs])
    elif task_file.absolute(given):
        return
    elif as_path(place).exists():
        gin_config.bind(name, place)
    elif name in _MODEL_PATHS:
        raise UserError(
            f"The {_MODEL_PATHS[name]} of {run} was {place} during training and isn't there now; "
            f"set its path with --gin.{name}=..."
        )


def _bind_labels(tasks: Sequence[Mapping[str, Any]]) -> None:
    """Binds recorded labels if none are configured and the target template is unchanged.

    The tasks of a mixture are matched by name.
    """
    parameters = {name: literal(text) for name, (text, _) in gin_config.resolved().items()}
    ending = "user_files.train_file"
    for scope in [name.removesuffix(ending) for name in parameters if name.endswith(ending)]:

        def value(parameter: str, scope: str = scope) -> Any:
            of_all = parameters.get(f"user_files.{parameter}")
            return parameters.get(f"{scope}user_files.{parameter}", of_all)

        if value("labels") is not None:
            continue
        given = value("train_file")
        first = given if isinstance(given, str) else (given or [""])[0]
        name = task_name(value("name"), as_path(first))
        for task in tasks:
            same_template = task.get("target_template") == value("target_template") is not None
            if same_template and (len(tasks) == 1 or task["name"] == name):
                gin_config.bind(f"{scope}user_files.labels", list(task["labels"] or []))
