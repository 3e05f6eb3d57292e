"""Errors a user can cause, each reported in one line.

A `UserError` states what was found, where, what was expected and how to fix it. The command line
prints only its message and exits with status 2; any other exception is a bug with its traceback.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

_MOST_LISTED = 10


class UserError(Exception):
    """A mistake in the user's input; the user sees only its message."""

    def _render_traceback_(self) -> list[str]:
        """Returns the lines that IPython shows instead of a traceback."""
        return [str(self)]


def at_least(least: int, values: Mapping[str, float | int | None], hint: str = "") -> None:
    """Checks that named values are at least `least`; None passes.

    Args:
      least: the smallest allowed value.
      values: the values, by the names that users know.
      hint: appended to the message, such as " (the paper's default is 100)".

    Raises:
      UserError: a value is smaller.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"{name} is {value}; it must be at least {least}{hint}.")


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns `" Did you mean 'a' or 'b'?"` for the closest candidates, or an empty string."""
    matches = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.5)
    if not matches:
        return ""
    return f" Did you mean {' or '.join(repr(match) for match in matches)}?"


def listed(parts: Sequence[str], separator: str = ", ") -> str:
    """Joins parts of a message; of more than ten, the first ten and the number of the rest."""
    more = len(parts) - _MOST_LISTED
    return separator.join([*parts[:_MOST_LISTED], f"and {more:,} more"] if more > 0 else parts)


LESS_MEMORY = (
    "Lower BATCH_SIZE, TASK_FEATURE_LENGTHS or PROMPT_LENGTH, or raise train.accumulation_steps; "
    "`prompt-tuning plan` estimates what a run needs."
)


def out_of_memory(error: BaseException) -> str | None:
    """Returns one line for an out-of-memory error of JAX or NumPy, else None."""
    text = " ".join(str(error).split())
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in text:
        return None
    asked = ""
    if found := re.search(r"allocat\w* (\d+) bytes", text):
        asked = f": {int(found[1]) / 2**30:,.1f} GiB were requested at once"
    elif found := re.search(r"allocat\w* ([\d.]+ ?[KMGT]i?B)", text):
        asked = f": {found[1]} were requested at once"
    return f"Out of memory{asked}. {LESS_MEMORY}"
