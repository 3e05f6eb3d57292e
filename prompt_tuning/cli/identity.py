"""The settings that identify a run; see `recipes/identity.py`."""

from pathlib import Path

import prompt_tuning
from prompt_tuning.cli import gin_config
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.recipes import identity
from prompt_tuning.recipes.signatures import mark


def settings() -> dict[str, str]:
    """Returns the macros and parameters of the loaded configuration that affect results."""
    fills: dict[str, list[bool]] = {}
    for parameter, (_, macros) in gin_config.resolved().items():
        for macro in macros:
            fills.setdefault(macro, []).append(mark(parameter).free)
    # Macros that fill only parameters that don't affect results.
    free = {macro for macro, parameters in fills.items() if all(parameters)}
    free |= {name for name, macro in MACROS.items() if macro.assigned}
    return {
        name: text
        for name, text in gin_config.settings().items()
        if name not in free and not ("." in name and mark(name).free)
    }


def file_contents() -> dict[str, str]:
    """Returns short hashes of the files named by settings and of the user's modules."""
    package = Path(prompt_tuning.__file__).parent
    modules = {
        f"contents of the module {module}": identity.hash_of([path])
        for module, path in gin_config.imported_files().items()
        if package not in path.parents
    }
    return {**identity.file_contents(gin_config.settings()), **modules}
