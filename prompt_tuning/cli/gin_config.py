"""Reads gin files and flags, and converts gin's exceptions into one-line user errors.

Files are searched by path, then in `--gin_search_paths`, then among the configs shipped with the
package, so `--gin_file=runs/train.gin` works from any folder.
"""

import contextlib
import importlib.util  # gin's file reader uses it too, without importing it
import io
import os
import re
import sys
import tokenize
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_internals
from gin.config import parse_value

from prompt_tuning.buckets import in_bucket
from prompt_tuning.cli import registry
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.cli.registry import register as register  # users' modules import it from here
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.files import FilePath, as_path
from prompt_tuning.recipes import gin_text
from prompt_tuning.recipes.paths import expanded
from prompt_tuning.recipes.paths import shipped_configs as shipped_configs
from prompt_tuning.recipes.signatures import PARAMETERS

_REQUIRED = "%gin.REQUIRED"
_TRAIN = "runs/train.gin"


def load(
    files: Sequence[str],
    bindings: Sequence[tuple[str, str]] = (),
    search_paths: str = "",
    lenient: Sequence[str] = (),
) -> None:
    """Replaces the configuration with these files, in order, followed by these bindings.

    Args:
      files: gin files, by path or by name in a search path.
      bindings: (name, value) strings of `--gin.NAME=VALUE`.
      search_paths: folders separated by commas.
      lenient: those of `files` whose failing imports, and names unknown as a result, are skipped.

    Raises:
      UserError: a file isn't found or isn't valid gin; a name is unknown; or a macro has the wrong
        type or is required and not set.
    """
    folders = [Path(folder) for folder in search_paths.split(",") if folder]
    folders.append(shipped_configs())
    files = _methods_last(files)
    paths = [find(file, folders) for file in files]

    _look_for_modules_here()
    gin.clear_config()
    _forgotten.clear()
    _include_folders[:] = folders
    for file, path in zip(files, paths, strict=True):
        _parse(gin.parse_config_file, str(path), str(path), skip_unknown=file in lenient)
    for name, value in bindings:
        _parse(gin.parse_config, f"{name} = {_as_gin(value)}", f"--gin.{name}={value}")
    _expand_paths()
    _check_macros()


def _methods_last(files: Sequence[str]) -> list[str]:
    """Moves files of methods from before runs/train.gin to after it.

    So a method's optimizer and learning rate override those of prompt tuning in any order.
    """
    if _TRAIN not in files:
        return list(files)
    at = files.index(_TRAIN)
    before = [file for file in files[:at] if file.startswith("methods/")]
    rest = [file for file in files[:at] if file not in before]
    return [*rest, _TRAIN, *before, *files[at + 1 :]]


def _expand_paths() -> None:
    """Expands a leading `~` in values and their items; only paths start with one."""
    for name, text in settings().items():
        if "~" in text:
            parameter = name if "." in name else f"{name}/macro.value"
            gin.bind_parameter(parameter, expanded(gin.query_parameter(parameter)))


def _look_for_modules_here() -> None:
    """Lets `import my_task` in a gin file find modules in the working directory."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def missing_modules(file: FilePath) -> list[str]:
    """Returns the modules imported by a gin file that can't be found."""
    _look_for_modules_here()
    missing = []
    for name in imports(file.read_bytes().decode()):
        with contextlib.suppress(ModuleNotFoundError):  # its parent package
            if name in sys.modules or importlib.util.find_spec(name):
                continue
        missing.append(name)
    return missing


def imports(text: str) -> list[str]:
    """Returns the modules imported by the text of a gin file."""
    return re.findall(r"^(?:import|from) +([\w.]+)", text, re.MULTILINE)


def imported_files() -> dict[str, Path]:
    """Returns the files of the modules imported by the loaded configuration, by module."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in imports(text())}
    return {name: Path(file) for name, file in files.items() if file}


def find(file: str, folders: Sequence[Path]) -> FilePath:
    """Returns the path of a gin file.

    Raises:
      UserError: the file doesn't exist; the message lists close matches.
    """
    if in_bucket(file):
        return as_path(file)
    for path in [Path(file), *(folder / file for folder in folders)]:
        if path.is_file():
            return path
    there = [
        path.relative_to(folder).as_posix()
        for folder in [Path(file).parent, *folders]
        if folder.is_dir()
        for path in folder.glob("**/*.gin" if folder in folders else "*.gin")
    ]
    places = ", ".join(str(folder) for folder in [Path.cwd(), *folders])
    raise UserError(f"No gin file '{file}' in {places}.{did_you_mean(file, there)}")


_include_folders: list[Path] = []


def _included(file: str) -> Path | None:
    return next((path for folder in _include_folders if (path := folder / file).is_file()), None)


# gin's own list of search paths only grows; here `include` searches those of the latest `load`.
# gin's reader of package resources is removed, which has no public API: it would fail on a folder
# `runs/` in the working directory by treating it as a Python package.
_readers: list[Any] = gin_internals._FILE_READERS
_readers[:] = [
    (open, os.path.isfile),
    (lambda file: io.StringIO(as_path(file).read_bytes().decode()), in_bucket),
    # gin closes it.
    (lambda file: open(str(_included(file)), encoding="utf-8"), _included),  # noqa: SIM115
]


def macro(name: str) -> Any:
    """Returns the value of a macro, or None if it isn't set."""
    try:
        value = gin.query_parameter(f"{name}/macro.value")
    except ValueError:
        return None
    return None if str(value) == _REQUIRED else value


def bind(name: str, value: Any) -> None:
    """Sets a macro or a parameter (`function.name`) in the loaded configuration."""
    with gin.unlock_config():
        gin.bind_parameter(name if "." in name else f"{name}/macro.value", value)


def forget(*names: str) -> None:
    """Resets macros to None, also in the recorded configuration."""
    with gin.unlock_config():
        for name in names:
            if macro(name) is not None:
                bind(name, None)
                _forgotten.add(name)


_forgotten: set[str] = set()


def text() -> str:
    """Returns the whole configuration as the text of a gin file."""
    return gin.config_str(max_line_length=100)


def operative_text() -> str:
    """Returns the part of the configuration that was used, with defaults, in the same format."""
    used = gin.operative_config_str(max_line_length=100)
    # gin records a macro's value at the time of use.
    for name in _forgotten:
        used = re.sub(rf"^{name} = .*$", f"{name} = None", used, flags=re.MULTILINE)
    # gin scopes a function called by a macro with the macro's name, which no flag can set.
    macros = "|".join(map(re.escape, MACROS))
    return re.sub(rf"^(# Parameters for )?(?:{macros})/", r"\1", used, flags=re.MULTILINE)


def settings() -> dict[str, str]:
    """Returns the value, as gin formats it, of every macro and parameter that is set."""
    statements: list[str] = []
    for line in text().splitlines():
        if line.startswith(" "):
            statements[-1] += " " + line.strip()
        elif line and not line.startswith("#"):
            statements.append(line.removesuffix("\\").strip())
    pairs = (statement.partition("=") for statement in statements if "=" in statement)
    return {name.strip(): value.strip() for name, _, value in pairs}


def resolved() -> dict[str, tuple[str, frozenset[str]]]:
    """Returns the text of each set parameter with macros resolved, and the macros' names."""
    return gin_text.resolved(settings())


def chosen() -> dict[str, str]:
    """Returns the configured names of the method and the optimizer."""
    found = resolved()
    return {
        name: found.get(f"train.{name}", ("?", None))[0].strip("@()")
        for name in ("method", "optimizer")
    }


def parameters(name: str) -> dict[str, Any]:
    """Returns a configurable's arguments that the configuration sets, by parameter."""
    return dict(gin.get_bindings(name))


def _as_gin(value: str) -> str:
    """Quotes a value that isn't a gin expression, so that users needn't on the command line."""
    if re.fullmatch(r"[\w.-]+:\d+", value):  # host:port; gin would parse 10.0.0.1 as a number
        return repr(value)
    try:
        parse_value(value)
    except (SyntaxError, tokenize.TokenError):
        return repr(value)
    except ValueError:  # an unknown reference, reported when it is bound
        pass
    return value


def _parse(parse: Any, source: str, where: str, *, skip_unknown: bool = False) -> None:
    try:
        parse(source, skip_unknown=skip_unknown)
    except (ValueError, SyntaxError, OSError, ImportError, tokenize.TokenError) as error:
        raise UserError(_one_line(str(error), where)) from error


def _one_line(message: str, where: str) -> str:
    """Condenses gin's error into one line with close matches; `where` is the file or flag."""
    first, *rest = message.splitlines()
    lines = (re.match(r"\s*In file (.*)", line) for line in rest)
    place = next((found[1].strip() for found in lines if found), where)
    if found := re.match(r"No configurable matching (?:reference )?'@?([\w./]+)", first):
        name = found[1].rpartition("/")[2]
        return f"Unknown gin name '{name}' ({place}).{did_you_mean(name, registry.FUNCTIONS)}"
    pattern = r"Configurable '([\w./]+)' doesn't have a parameter named '(\w+)'"
    if found := re.match(pattern, first):
        name, parameter = found[1], found[2]
        close = did_you_mean(parameter, PARAMETERS.get(name, ()))
        return f"'{name}' has no parameter '{parameter}' ({place}).{close}"
    if found := re.match(r"Unable to open file: (\S+?)\. ", first):
        return f"No gin file '{found[1]}' ({place})."
    return f"Can't read the configuration ({place}): {first}"


def _check_macros() -> None:
    """Raises UserError for macros that are unused, of the wrong type, or required and not set."""
    texts = settings()
    refers = {name: gin_text.macros_in(text) for name, text in texts.items()}
    macros = [name for name in texts if "." not in name]
    try:
        TopologicalSorter({name: refers[name] for name in macros}).prepare()
    except CycleError as error:
        name = error.args[1][0]
        raise UserError(
            f"The macro {name} refers to itself; set it to a value, such as --gin.{name}=..."
        ) from None
    used = {name for names in refers.values() for name in names}
    missing: dict[str, str] = {}
    for name in macros:
        known = MACROS.get(name)
        if known is None and name not in used:
            parameters = (f"{each}.{name}" for each in registry.configurables_with(name))
            close = did_you_mean(name, {*MACROS, *used, *parameters})
            raise UserError(f"Unknown gin macro '{name}': nothing uses it.{close}")
        value = gin.query_parameter(f"{name}/macro.value")
        if str(value) == _REQUIRED:
            meaning = f" ({known.meaning})" if known else ""
            missing[name] = f"{name} is required and not set: add --gin.{name}=...{meaning}."
        elif known is None:
            continue
        elif value == "":
            raise UserError(
                f"{name} is empty; expected {known.meaning} (a shell variable that isn't set?)."
            )
        elif str(value)[:1] not in "@%" and not known.accepts(value):
            raise UserError(f"{name} is {value!r}; expected {known.expected}.")
    for name in sorted(used - {"gin.REQUIRED"} - set(macros)):
        given_by = _GIVEN_BY.get(name, f"--gin.{name}=...")
        missing[name] = f"{name} is used by the configuration and not set: add {given_by}"
    alone = [name for name in missing if _WITH_THE_FILE.get(name) not in missing]
    if len(alone) == 1:
        raise UserError(missing[alone[0]])
    if alone:
        needed = [_GIVEN_BY.get(name, f"{name} (--gin.{name}=...)") for name in alone]
        if "train.folder" in texts and "train.method" not in texts:
            needed.append("the method (a --gin_file of prompts/ or methods/)")
        raise UserError(f"Not set: {'; '.join(needed)}.")


_GIVEN_BY = {
    "INITIAL_CHECKPOINT_PATH": "the model (a --gin_file of models/ and INITIAL_CHECKPOINT_PATH)",
    "MIXTURE_OR_TASK_NAME": "the task (a --gin_file of tasks/, such as tasks/superglue_rte.gin)",
}
_WITH_THE_FILE = {
    "VOCABULARY_PATH": "INITIAL_CHECKPOINT_PATH",
    "TASK_FEATURE_LENGTHS": "MIXTURE_OR_TASK_NAME",
}
"""Macros that are set by the same gin file as another macro."""
