"""Runs a command or script as a process, printing user errors as one line.

if __name__ == "__main__":
    run(main)
"""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from prompt_tuning.buckets import failure
from prompt_tuning.errors import UserError, out_of_memory
from prompt_tuning.training.signals import leave_when_interrupted

# Operating system errors caused by the disk or a folder, not by the program.
_DISK = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is denied",
    errno.EROFS: "the file system is read-only",
}

COMMAND = (sys.executable, "-m", "prompt_tuning.cli")
"""`prompt-tuning` as a subprocess of this Python."""

USER_ERROR = 2
INTERRUPTED = 130


def run(command: Callable[[Sequence[str]], int | None]) -> None:
    """Runs `command` on the process's arguments and exits with its status."""
    with leave_when_interrupted():
        sys.exit(status_of(command, sys.argv[1:]))


def output_of(arguments: Sequence[str]) -> str:
    """Returns the stdout of a `prompt-tuning` subprocess; exits with its status if it fails."""
    done = subprocess.run([*COMMAND, *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has printed the reason
    return done.stdout


def status_of(command: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
    """Runs `command`; a user error is printed as one line on stderr and returns status 2."""
    # Silences TensorFlow, which is imported when a command first prepares data.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        return command(argv) or 0
    except BaseException as error:
        if (status := report(error)) is None:
            raise
        return status


def report(error: BaseException) -> int | None:
    """Prints one line for an error that isn't a bug; returns the exit status, None for a bug."""
    if isinstance(error, UserError):
        # gin appends the configurable that raised the error, with its memory address.
        message = " ".join(str(error).partition("\n  In call to configurable ")[0].split())
    elif isinstance(error, BrokenPipeError):
        # The reader closed the pipe; the interpreter must not flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    elif isinstance(error, OSError) and error.errno in _DISK:
        where = f" for {error.filename}" if error.filename else ""
        message = (
            f"Can't write or read{where}: {_DISK[error.errno]}. Fix this, or choose another path."
        )
    elif why := failure(error):
        message = f"Google Cloud Storage: {why}."
    elif isinstance(error, KeyboardInterrupt):
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    elif isinstance(error, Exception) and (found := out_of_memory(error)) is not None:
        message = found
    else:
        return None
    print(f"prompt-tuning: {message}", file=sys.stderr)
    return USER_ERROR
