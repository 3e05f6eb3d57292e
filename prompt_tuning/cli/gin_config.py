"""Reads gin files and flags, and turns gin's exceptions into one line for the user.

Files are looked for by path, then in `--gin_search_paths`, then among the configs shipped with
the package, so that `--gin_file=runs/train.gin` works anywhere.
"""

import importlib.util  # gin's file reader uses it too, without importing it
import os
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import gin
from gin import config as gin_internals
from gin.config import parse_value

from prompt_tuning.cli import registry
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.cli.registry import register as register  # where users' modules look for it
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.recipes import gin_text
from prompt_tuning.recipes.paths import expanded
from prompt_tuning.recipes.paths import shipped_configs as shipped_configs

_REQUIRED = "%gin.REQUIRED"
_TRAIN = "runs/train.gin"


def load(
    files: Sequence[str],
    bindings: Sequence[tuple[str, str]] = (),
    search_paths: str = "",
    lenient: Sequence[str] = (),
) -> None:
    """Replaces the configuration by these files, in order, and then these bindings.

    Args:
      files: gin files, by path or by name in a search path.
      bindings: (name, value) texts of `--gin.NAME=VALUE`.
      search_paths: folders separated by commas.
      lenient: those of `files` in which what can't be imported, and what is then unknown, is
        skipped.

    Raises:
      UserError: a file isn't found or can't be read as gin; a name is unknown; a macro has a
        value of a wrong type, or is required and not set.
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
    """Puts files of methods that stand before runs/train.gin after it.

    A method's own optimizer and learning rate replace those of prompt tuning in either order.
    """
    if _TRAIN not in files:
        return list(files)
    at = files.index(_TRAIN)
    before = [file for file in files[:at] if file.startswith("methods/")]
    rest = [file for file in files[:at] if file not in before]
    return [*rest, _TRAIN, *before, *files[at + 1 :]]


def _expand_paths() -> None:
    """Replaces a `~` that a value, or an item of it, begins with: only a path begins so."""
    for name, text in settings().items():
        if "~" in text:
            parameter = name if "." in name else f"{name}/macro.value"
            gin.bind_parameter(parameter, expanded(gin.query_parameter(parameter)))


def _look_for_modules_here() -> None:
    """Lets `import my_task` in a gin file find the user's own modules, as `python -m` would."""
    if "" not in sys.path:
        sys.path.insert(0, "")


def missing_modules(file: Path) -> list[str]:
    """Returns the modules that a gin file imports and that can't be found from here."""
    _look_for_modules_here()
    return [name for name in imports(file.read_text("utf-8")) if not _can_import(name)]


def imports(text: str) -> list[str]:
    """Returns the modules that the text of a gin file imports."""
    return re.findall(r"^(?:import|from) +([\w.]+)", text, re.MULTILINE)


def _can_import(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def find(file: str, folders: Sequence[Path]) -> Path:
    """Returns the path of a gin file.

    Raises:
      UserError: no such file, with close matches among the files that there are.
    """
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


def _open_included(file: str) -> IO[str]:
    path = _included(file)
    assert path is not None
    return path.open(encoding="utf-8")


# gin's own list of search paths only ever grows; `include` looks in those of the latest `load`.
# Its reader of package resources is left out, for which there is no public way: it would take a
# folder `runs/` in the working directory for a Python package, and fail on it.
_readers: list[Any] = gin_internals._FILE_READERS
_readers[:] = [
    (open, os.path.isfile),
    (_open_included, lambda file: _included(file) is not None),
]


def macro(name: str) -> Any:
    """Returns the value of a macro, or None where it is not set."""
    try:
        value = gin.query_parameter(f"{name}/macro.value")
    except ValueError:
        return None
    return None if str(value) == _REQUIRED else value


def bind(name: str, value: Any) -> None:
    """Sets a macro, or a parameter with its function's name, in the loaded configuration."""
    with gin.unlock_config():
        gin.bind_parameter(name if "." in name else f"{name}/macro.value", value)


def forget(*names: str) -> None:
    """Sets macros to None where they are set, in what is recorded of the configuration as well."""
    with gin.unlock_config():
        for name in names:
            if macro(name) is not None:
                bind(name, None)
                _forgotten.add(name)


_forgotten: set[str] = set()


def text() -> str:
    """Returns the whole configuration as a gin file that gives it again."""
    return gin.config_str(max_line_length=100)


def operative_text() -> str:
    """Returns what has been used of it, with the defaults of what was not set, in the same form."""
    used = gin.operative_config_str(max_line_length=100)
    # gin remembers what a macro was when it was used.
    for name in _forgotten:
        used = re.sub(rf"^{name} = .*$", f"{name} = None", used, flags=re.MULTILINE)
    # What a macro calls is listed under the macro's name, where no flag would reach it.
    macros = "|".join(map(re.escape, MACROS))
    return re.sub(rf"^(# Parameters for )?(?:{macros})/", r"\1", used, flags=re.MULTILINE)


def settings() -> dict[str, str]:
    """Returns every macro and parameter that is set, with its value as gin writes it."""
    statements: list[str] = []
    for line in text().splitlines():
        if line.startswith(" "):
            statements[-1] += " " + line.strip()
        elif line and not line.startswith("#"):
            statements.append(line.removesuffix("\\").strip())
    pairs = (statement.partition("=") for statement in statements if "=" in statement)
    return {name.strip(): value.strip() for name, _, value in pairs}


def resolved() -> dict[str, tuple[str, frozenset[str]]]:
    """Returns each parameter that is set: its text with macros put in, and which those are."""
    return gin_text.resolved(settings())


def chosen() -> dict[str, str]:
    """Returns the names that the configuration has for the method and the optimizer."""
    found = resolved()
    return {
        name: found.get(f"train.{name}", ("?", None))[0].strip("@()")
        for name in ("method", "optimizer")
    }


def parameters(name: str) -> dict[str, Any]:
    """Returns what the configuration gives a configurable, by parameter."""
    return dict(gin.get_bindings(name))


def _as_gin(value: str) -> str:
    """A value that is no gin expression is a text: quotes are a burden on a command line."""
    if re.fullmatch(r"[\w.-]+:\d+", value):  # host:port; gin would read a number from 10.0.0.1
        return repr(value)
    try:
        parse_value(value)
    except (SyntaxError, tokenize.TokenError):
        return repr(value)
    except ValueError:  # an unknown reference: said better with the name it is bound to
        pass
    return value


def _parse(parse: Any, source: str, where: str, *, skip_unknown: bool = False) -> None:
    try:
        parse(source, skip_unknown=skip_unknown)
    except (ValueError, SyntaxError, OSError, ImportError, tokenize.TokenError) as error:
        raise UserError(_one_line(str(error), where)) from error


def _one_line(message: str, where: str) -> str:
    """Says gin's message in one line, with close matches; `where` is the file or flag."""
    first, *rest = message.splitlines()
    lines = (re.match(r"\s*In file (.*)", line) for line in rest)
    place = next((found[1].strip() for found in lines if found), where)
    if found := re.match(r"No configurable matching (?:reference )?'@?([\w./]+)", first):
        name = found[1].rpartition("/")[2]
        return f"Unknown gin name '{name}' ({place}).{did_you_mean(name, registry.names())}"
    pattern = r"Configurable '([\w./]+)' doesn't have a parameter named '(\w+)'"
    if found := re.match(pattern, first):
        name, parameter = found[1], found[2]
        close = did_you_mean(parameter, registry.parameters_of(name))
        return f"'{name}' has no parameter '{parameter}' ({place}).{close}"
    if found := re.match(r"Unable to open file: (\S+?)\. ", first):
        return f"No gin file '{found[1]}' ({place})."
    return f"Can't read the configuration ({place}): {first}"


def _check_macros() -> None:
    """Finds macros that nothing uses, that are of a wrong type, and that still need a value."""
    whole = gin.config_str()
    _check_circles()
    used = set(re.findall(r"%([\w.]+)", whole))
    missing: dict[str, tuple[str, str]] = {}
    for name in _defined_macros(whole):
        if name not in MACROS and name not in used:
            close = did_you_mean(name, {*MACROS, *used, *_parameters_named(name)})
            raise UserError(f"Unknown gin macro '{name}': nothing uses it.{close}")
        value = gin.query_parameter(f"{name}/macro.value")
        if str(value) == _REQUIRED:
            meaning = f" ({MACROS[name].meaning})" if name in MACROS else ""
            missing[name] = (
                f"{name} is required and not set: add --gin.{name}=...{meaning}.",
                f"{name} (--gin.{name}=...)",
            )
            continue
        if name in MACROS and value == "":
            raise UserError(
                f"{name} is empty; expected {MACROS[name].meaning} (a shell variable that isn't "
                "set?)."
            )
        if name in MACROS and str(value)[:1] not in "@%" and not MACROS[name].accepts(value):
            raise UserError(f"{name} is {value!r}; expected {MACROS[name].expected}.")
    for name in sorted(used - {"gin.REQUIRED"} - set(_defined_macros(whole))):
        short = _GIVEN_BY.get(name, f"{name} (--gin.{name}=...)")
        missing[name] = (
            f"{name} is used by the configuration and not set: add "
            f"{short if name in _GIVEN_BY else f'--gin.{name}=...'}",
            short,
        )
    _raise_missing(missing)


_GIVEN_BY = {
    "INITIAL_CHECKPOINT_PATH": "the model (a --gin_file of models/ and INITIAL_CHECKPOINT_PATH)",
    "MIXTURE_OR_TASK_NAME": "the task (a --gin_file of tasks/, such as tasks/superglue_rte.gin)",
}
_WITH_THE_FILE = {"VOCABULARY_PATH": "INITIAL_CHECKPOINT_PATH"} | {
    "TASK_FEATURE_LENGTHS": "MIXTURE_OR_TASK_NAME"
}
"""Macros that the gin file of another one sets too."""


def _raise_missing(missing: Mapping[str, tuple[str, str]]) -> None:
    """Raises for macros without a value; each has a sentence for itself and a few words."""
    alone = [name for name in missing if _WITH_THE_FILE.get(name) not in missing]
    if len(alone) == 1:
        raise UserError(missing[alone[0]][0])
    if alone:
        listed_ones = [missing[name][1] for name in alone]
        given = settings()
        if "train.folder" in given and "train.method" not in given:
            listed_ones.append("the method (a --gin_file of prompts/ or methods/)")
        raise UserError(f"Not set: {'; '.join(listed_ones)}.")


def _check_circles() -> None:
    """Finds macros that refer to themselves, on whatever way."""
    refers = {
        name: re.findall(r"%([\w./]+)", text)
        for name, text in settings().items()
        if "." not in name
    }
    for name in refers:
        way, seen = [name], set[str]()
        while way:
            for other in refers.get(way.pop(), ()):
                if other == name:
                    raise UserError(
                        f"The macro {name} refers to itself; set it to a value, such as "
                        f"--gin.{name}=..."
                    )
                if other not in seen:
                    seen.add(other)
                    way.append(other)


def _parameters_named(name: str) -> list[str]:
    """Returns the configurables' parameters of that name, as gin calls them."""
    return [f"{owner}.{name}" for owner in registry.configurables_with(name)]


def _defined_macros(whole: str) -> Iterator[str]:
    """Yields the macros in the text of a configuration, where they stand before any section."""
    macros = re.search(r"^# Macros:\n# =+\n(.*?)(?=^# |\Z)", whole, re.MULTILINE | re.DOTALL)
    if macros:
        yield from re.findall(r"^([\w./]+) =", macros[1], re.MULTILINE)
