"""The command `prompt-tuning`: picks the command, and prints a user's mistake as one line.

Each command is a module with `main(argv)`, imported once its arguments are known to be right.
"""

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence

import prompt_tuning
from prompt_tuning.cli.command_settings import COMMANDS
from prompt_tuning.cli.parsers import parse
from prompt_tuning.errors import UserError, did_you_mean, out_of_memory
from prompt_tuning.training.signals import leave_when_interrupted

# What the operating system says when a disk or a folder is the trouble, not the program.
_DISK = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is denied",
    errno.EROFS: "the file system is read-only",
}

USER_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit status. Raises UserError for the user's mistakes."""
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
    if name != "launch":  # whose arguments its engines have
        parse(name, rest)
    return importlib.import_module(f"prompt_tuning.cli.{name}").main(rest) or 0


def run(command: Callable[[Sequence[str]], int | None] = main) -> None:
    """Runs `command` on the process's arguments and exits with its status."""
    with leave_when_interrupted():
        sys.exit(status_of(command, sys.argv[1:]))


def status_of(command: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """Runs `command`; a mistake of the user's becomes one line on stderr and the status 2."""
    # Read by TensorFlow when a command first prepares data: no start-up lines.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        return command(argv) or 0
    except BaseException as error:
        if (status := report(error)) is None:
            raise
        return status


def report(error: BaseException) -> int | None:
    """Prints a line for an error that is no bug; returns the exit status, or None for a bug."""
    if isinstance(error, UserError):
        # gin appends which configurable raised the error, with its address in memory.
        message = " ".join(str(error).partition("\n  In call to configurable ")[0].split())
    elif isinstance(error, BrokenPipeError):
        # Whoever reads our output has had enough; the interpreter must not flush into the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    elif isinstance(error, OSError) and error.errno in _DISK:
        where = f" for {error.filename}" if error.filename else ""
        message = f"Can't write or read{where}: {_DISK[error.errno]}. Free it or choose another."
    elif isinstance(error, KeyboardInterrupt):
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    elif isinstance(error, Exception) and (found := out_of_memory(error)) is not None:
        message = found
    else:
        return None
    print(f"prompt-tuning: {message}", file=sys.stderr)
    return USER_ERROR


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = "\n".join(f"  {name:{width}}{summary}" for name, summary in COMMANDS.items())
    return (
        f"{prompt_tuning.__doc__}\n\nusage: prompt-tuning COMMAND [--help] ...\n\n"
        f"commands:\n{lines}"
    )


if __name__ == "__main__":
    run()
