"""Command-line arguments in T5X's format, without absl.

    --gin_file=PATH          may be repeated; later files override earlier ones
    --gin.NAME=VALUE         sets a macro or a parameter, after all files
    --gin_search_paths=A,B   folders to search for gin files

Parsing imports neither gin nor JAX, so `--help` and error messages are instant.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from prompt_tuning.cli.command_settings import SETTINGS
from prompt_tuning.cli.macros import MACROS
from prompt_tuning.cli.parameter_meanings import MEANINGS
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.recipes.paths import expanded, expanded_argument, local_path, run_folder

_GIN = "--gin."


def _settings_of(command: str) -> str:
    """Returns the help text for the settings of a command."""
    settings = SETTINGS[command]
    macros = {name: MACROS[name].meaning for name in settings.macros}
    parameters = {name: MEANINGS[name] for name in settings.parameters}
    width = max(map(len, [*macros, *parameters])) + 2
    parts = ["macros, each set as --gin.NAME=VALUE:"]
    parts += [f"  {name:{width}}{meaning}" for name, meaning in macros.items()]
    if parameters:
        parts += ["", "parameters, set the same way (all are in docs/parameters.md):"]
        parts += [f"  {name:{width}}{meaning}" for name, meaning in parameters.items()]
    parts += ["", f"example:\n  prompt-tuning {command} {settings.example}"]
    return "\n".join(parts)


class Parser(argparse.ArgumentParser):
    """An argument parser with the gin flags that raises UserError for invalid arguments."""

    def __init__(self, command: str, description: str, *, gin: bool = True):
        """Initializes the parser from the command's name and one-line description."""
        super().__init__(
            prog=f"prompt-tuning {command}",
            description=description,
            epilog=_settings_of(command) if gin else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._gin = gin
        if gin:
            group = self.add_argument_group("configuration")
            group.add_argument(
                "--gin_file",
                action="append",
                default=[],
                metavar="PATH",
                help="a gin file, by path or by its name in configs/; may be repeated",
            )
            group.add_argument(
                "--gin_search_paths",
                default="",
                metavar="FOLDERS",
                help="folders to search for gin files, separated by commas",
            )
            group.add_argument(
                "--gin.NAME",
                dest="gin_bindings",
                metavar="VALUE",
                default=[],
                help="set a macro or a parameter, overriding every file",
            )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parses `argv`; `gin_bindings` of the result lists (name, value) pairs of strings.

        Raises:
          UserError: an argument is unknown, or a value is missing.
        """
        plain, bindings = [], []
        arguments = iter(argv)
        for argument in arguments:
            if not (self._gin and argument.startswith(_GIN)):
                plain.append(self._given(argument))
                continue
            name, equals, value = argument.removeprefix(_GIN).partition("=")
            if not equals:
                value = next(arguments, None)
            if not name or value is None:
                raise UserError(f"{argument} has no value; write --gin.NAME=VALUE.")
            if name in ("MODEL_DIR", "train.folder"):  # checked again after reading gin files
                run_folder(expanded(value.strip("'\"")), name)
            bindings.append((name, value))
        parsed, unknown = self.parse_known_args(plain)
        if unknown:
            close = _gin_flag(unknown[0]) if self._gin else ""
            close = close or did_you_mean(unknown[0].partition("=")[0], self._option_string_actions)
            raise UserError(f"Unknown argument '{unknown[0]}'.{close} See {self.prog} --help.")
        for name in ("output", "report"):
            if path := getattr(parsed, name, None):
                local_path(path, f"--{name}")
        parsed.gin_bindings = bindings
        return parsed

    def _given(self, argument: str) -> str:
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            raise UserError(
                f"The argument '{argument}' is empty (a shell variable that isn't set?). "
                f"See {self.prog} --help."
            )
        return expanded_argument(argument)

    def error(self, message: str) -> NoReturn:
        """Raises UserError instead of printing the usage and exiting."""
        raise UserError(f"{message[0].upper()}{message[1:]}. See {self.prog} --help.")


def _gin_flag(argument: str) -> str:
    """Returns a hint if `--learning-rate=0.1` should be `--gin.LEARNING_RATE=0.1`."""
    name, equals, value = argument.lstrip("-").partition("=")
    macro = name.replace("-", "_").upper()
    if macro not in MACROS and "." not in name:
        return ""
    name = macro if macro in MACROS else name
    return f" Did you mean '{_GIN}{name}={value if equals else '...'}'?"
