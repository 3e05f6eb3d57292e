"""The command `prompt-tuning`: picks the command, and prints a user's mistake as one line.

Each command is a module with `main(argv)`, imported only when it is asked for, and can also be
run as `python -m prompt_tuning.cli.<command>`.
"""

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence

import prompt_tuning
from prompt_tuning.errors import UserError, did_you_mean, out_of_memory
from prompt_tuning.training.signals import leave_when_interrupted

COMMANDS = {
    "quickstart": "train a prompt on a small frozen model in about a minute",
    "train": "train a prompt against a frozen model",
    "pretrain": "train or adapt a whole model on plain text",
    "sweep": "train every run of a grid of settings; resumes",
    "results": "show a sweep's results as a table",
    "report": "write one web page about a run or a sweep",
    "plan": "estimate memory and time of training on hardware you don't have yet",
    "evaluate": "score a prompt on a task",
    "ensemble": "score several prompts of one model, alone and as a vote",
    "design": "score text prompts, zero- and few-shot, with no training",
    "search": "pick a text prompt on the development set",
    "infer": "answer the rows of a file with one prompt, or with many",
    "serve": "answer over HTTP with a folder of prompts",
    "methods": "list what each method trains, saves and supports",
    "tasks": "list the tasks, with sizes where known",
    "show": "print examples of a task as the model sees them",
    "submit": "write the zip that the SuperGLUE or GLUE leaderboard takes",
    "neighbors": "show the vocabulary pieces nearest to a prompt's positions",
    "compare": "show how alike prompts of different tasks and seeds are",
    "launch": "write a job for SLURM, Cloud TPU, Kubernetes or SkyPilot",
    "convert": "write a frozen model of any format as one file or for Hugging Face",
    "merge": "add what LoRA, IA3 or model tuning has trained to the model's weights",
    "export": "write a prompt in another form, for PEFT, T5X or anyone",
}

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
