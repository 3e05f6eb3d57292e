"""Progress display: a bar on a terminal, otherwise a line every ten seconds."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from prompt_tuning.recipes.say import say

_SECONDS_BETWEEN_LINES = 10.0
_BAR_AFTER = 1.0  # seconds; shorter work shows nothing

T = TypeVar("T")


class Counting:
    """Counts finished items; with a known `total`, also shows the time left."""

    def __init__(self, what: str, total: int | None, unit: str, *, shown: bool = True):
        self._what, self._total, self._unit, self._shown = what, total, unit, shown
        self._done, self._started = 0, time.monotonic()
        self._last_line = self._started
        self._bar = None
        if shown and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = tqdm(
                desc=what,
                total=total,
                unit=unit,
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
                delay=_BAR_AFTER,
            )

    def add(self, number: int = 1) -> None:
        """Counts `number` more as done."""
        self.at(self._done + number)

    def at(self, done: int, note: str = "") -> None:
        """Sets the total number done and the note to show."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(done - self._done)
        self._done = done
        now = time.monotonic()
        if self._bar is None and self._shown and now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            say(f"{self._line(now)}{f' ({note})' if note else ''}")

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            self._bar.close()

    def _line(self, now: float) -> str:
        if self._total is None:
            return f"{self._what}: {self._done:,} {self._unit}"
        text = f"{self._what}: {self._done:,} of {self._total:,} {self._unit}"
        if not self._done:
            return text
        seconds = (now - self._started) / self._done * (self._total - self._done)
        return f"{text}, {tqdm.format_interval(seconds)} left"


def counted(
    items: Iterable[T],
    what: str,
    total: int,
    *,
    size: Callable[[T], int] = lambda item: 1,
    shown: bool = True,
) -> Iterator[T]:
    """Yields items and counts the `size` of each after it has been processed."""
    counting = Counting(what, total, "examples", shown=shown)
    try:
        for item in items:
            yield item
            counting.add(size(item))
    finally:
        counting.close()
