"""The time from the command to the end of the first step, by part.

The parts add up to the total: compilation always counts as "compile", even within another part.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prompt_tuning.training.compile_clock import compile_clock

PARTS = ("imports", "weights", "data", "compile", "evaluation", "step", "other")
"""The parts of the time to the first step.

imports: from the start of the process until all modules are loaded.
weights: reading the frozen model and its vocabulary.
data: token ids and the first batch.
compile: tracing, compiling, and loading compiled programs, in any part.
evaluation: scoring the untrained prompt.
step: the first step itself.
other: configuration, run folder, initialization of the prompt.
"""

_ANNOUNCED = {
    "weights": "Loading the model",
    "data": "Tokenizing the data, or reading it from the cache",
    "evaluation": "Compiling, and scoring before training",
    "step": "Compiling the training step",
}
"""Printed when a part begins."""

_IMPORTED = time.time()


def process_start() -> float:
    """Returns the start time of this process, in hundredths of a second, like `time.time()`.

    Without /proc, returns the time when this module was imported.
    """
    try:
        stat = Path("/proc/self/stat").read_text()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return _IMPORTED
    # The 20th field after the name, which is in parentheses and may contain any character.
    ticks = int(stat.rpartition(")")[2].split()[19])
    age = uptime - ticks / os.sysconf("SC_CLK_TCK")
    return min(_IMPORTED, time.time() - max(age, 0.0))


class Startup:
    """Measures a command's startup; create it right after the imports."""

    def __init__(
        self, started: float | None = None, say: Callable[[str], None] = lambda text: None
    ):
        """Starts measuring.

        Args:
          started: start time of the command, like `time.time()`. If None, that of the process.
          say: prints a line when a part begins.
        """
        self._clock, self._say = compile_clock(), say
        self._started = process_start() if started is None else started
        self._parts = {"imports": time.time() - self._started}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time inside as this part, except for compilation."""
        started, compiled = time.time(), self._clock.read().seconds
        if name in _ANNOUNCED and name not in self._parts:
            self._say(f"[{started - self._started:.0f} s] {_ANNOUNCED[name]} ...")
        self._parts.setdefault(name, 0.0)
        yield
        spent = time.time() - started - (self._clock.read().seconds - compiled)
        self._parts[name] = self._parts.get(name, 0.0) + max(spent, 0.0)

    def end(self) -> dict[str, float]:
        """Returns the seconds of each part so far, and their "total"."""
        total = time.time() - self._started
        parts = {**self._parts, "compile": self._clock.read().seconds}
        parts["other"] = max(total - sum(parts.values()), 0.0)
        return {"total": total, **{name: parts.get(name, 0.0) for name in PARTS}}


def startup_line(seconds: Mapping[str, float]) -> str:
    """Returns a line with the seconds of `Startup.end`, without parts that took no time."""
    parts = ", ".join(f"{name} {seconds[name]:.1f}" for name in PARTS if seconds[name] >= 0.05)
    return f"First step done {seconds['total']:.1f} s after the command: {parts}."
