"""What the loaded configuration says of a run's identity; see `recipes/identity.py`."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import prompt_tuning
from prompt_tuning.cli import gin_config, registry
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.recipes import identity
from prompt_tuning.training.run_folder import Comparison


def settings() -> dict[str, str]:
    """Returns the macros and parameters of the loaded configuration that a result depends on."""
    free = _free_macros() | {name for name, macro in MACROS.items() if macro.assigned}
    return {
        name: text
        for name, text in gin_config.settings().items()
        if name not in free and not ("." in name and registry.mark(name).free)
    }


def _free_macros() -> set[str]:
    """Macros that fill parameters, and none but such as no result depends on."""
    fills: dict[str, list[bool]] = {}
    for parameter, (_, macros) in gin_config.resolved().items():
        for macro in macros:
            fills.setdefault(macro, []).append(registry.mark(parameter).free)
    return {macro for macro, free in fills.items() if all(free)}


def file_contents() -> dict[str, str]:
    """Returns short hashes of the files that settings name, and of the user's own modules."""
    modules = {
        f"contents of the module {module}": identity.hash_of([path])
        for module, path in _user_modules()
    }
    return {**identity.file_contents(gin_config.settings(), registry.mark), **modules}


def _user_modules() -> Iterator[tuple[str, Path]]:
    """Yields the modules that gin files import, but for this package's."""
    own = Path(prompt_tuning.__file__).parent
    for name in gin_config.imports(gin_config.text()):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file and own not in Path(file).parents:
            yield name, Path(file)


def compare(found: Mapping[str, Any], given: Mapping[str, Any]) -> Comparison:
    """Compares what a run folder recorded with what is configured now."""
    return identity.compare(found, given, mark=registry.mark, default_of=registry.default_of)
