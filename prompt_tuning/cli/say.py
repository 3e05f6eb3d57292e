"""What commands print beside their results."""

import sys


def say(text: str) -> None:
    """Prints progress on stderr, where the bar is; stdout is for results."""
    print(text, file=sys.stderr, flush=True)
