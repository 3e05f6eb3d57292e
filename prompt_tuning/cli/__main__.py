"""Entry point of `prompt-tuning`: runs a command and prints user errors as one line.

Each command is a module with `main(argv)`, imported after its arguments are validated.
"""

import importlib
from collections.abc import Sequence

import prompt_tuning
from prompt_tuning.cli.command_settings import COMMANDS
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError, did_you_mean
from prompt_tuning.recipes import scripts


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns its exit status; raises UserError for user errors."""
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        print(prompt_tuning.__version__)
        return 0
    if name not in COMMANDS:
        raise UserError(
            f"Unknown command '{name}'; expected {', '.join(COMMANDS)}."
            f"{did_you_mean(name, COMMANDS)}"
        )
    if name != "launch":  # whose arguments depend on the scheduler
        parse(name, rest)
    return importlib.import_module(f"prompt_tuning.cli.{name}").main(rest) or 0


def run() -> None:
    """Runs the command named by the process's arguments and exits with its status."""
    scripts.run(main)


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = "\n".join(f"  {name:{width}}{summary}" for name, summary in COMMANDS.items())
    return (
        f"{prompt_tuning.__doc__}\n\nusage: prompt-tuning COMMAND [--help] ...\n\n"
        f"commands:\n{lines}"
    )


if __name__ == "__main__":
    run()
