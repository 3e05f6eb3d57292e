"""Progress on the screen."""

import sys

from tqdm import tqdm

from prompt_tuning.parallel.processes import is_first


def say(text: str) -> None:
    """Prints progress on stderr, above the bar if there is one; stdout is for results."""
    tqdm.write(text, file=sys.stderr)


def say_once(text: str) -> None:
    """Prints it on the first of several processes alone."""
    if is_first():
        say(text)
