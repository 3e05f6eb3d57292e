"""Printing of progress."""

import sys

from tqdm import tqdm

from prompt_tuning.parallel.processes import is_first


def say(text: str) -> None:
    """Prints to stderr, above the progress bar if there is one; stdout is for results."""
    tqdm.write(text, file=sys.stderr)


def say_once(text: str) -> None:
    """Prints to stderr in the first process only."""
    if is_first():
        say(text)
