"""Printing of progress."""

import contextlib
import io
import sys
from contextlib import AbstractContextManager
from typing import Any

from tqdm import tqdm

from prompt_tuning.parallel.processes import is_first


def say(text: str) -> None:
    """Prints to stderr, above the progress bar if there is one; stdout is for results."""
    tqdm.write(text, file=sys.stderr)


def say_once(text: str) -> None:
    """Prints to stderr in the first process only."""
    if is_first():
        say(text)


def shown(shown: bool) -> AbstractContextManager[Any]:
    """Returns a context manager that hides what is printed to stderr unless `shown`."""
    return contextlib.nullcontext() if shown else contextlib.redirect_stderr(io.StringIO())
