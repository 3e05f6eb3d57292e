"""Progress on the screen."""

import sys

from tqdm import tqdm


def say(text: str) -> None:
    """Prints progress on stderr, above the bar if there is one; stdout is for results."""
    tqdm.write(text, file=sys.stderr)
