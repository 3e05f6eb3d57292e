"""Where the time goes from the command to the end of the first step.

The parts add up to the total: a second of compiling is counted as that, wherever it was spent.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prompt_tuning.training.compile_clock import compile_clock

PARTS = ("imports", "weights", "data", "compile", "evaluation", "step", "other")
"""Of the time to the first step.

imports: from the start of the process until the code is loaded.
weights: reading the frozen model and its vocabulary.
data: token ids and the first batch.
compile: tracing, compiling, and loading compiled programs, anywhere.
evaluation: of the untrained prompt.
step: the first step itself.
other: configuration, run folder, the prompt's first values.
"""

_ANNOUNCED = {
    "weights": "Loading the model",
    "data": "Tokenizing the data, or reading it from the cache",
    "evaluation": "Compiling, and scoring what is untrained",
    "step": "Compiling the training step",
}
"""What is said as a part begins."""

_IMPORTED = time.time()


def process_start() -> float:
    """Returns when this process started, as `time.time()`; without /proc, when this was imported.

    To a hundredth of a second.
    """
    try:
        stat = Path("/proc/self/stat").read_text()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return _IMPORTED
    # After the name, which may hold anything, in parentheses; the twentieth field from there.
    ticks = int(stat.rpartition(")")[2].split()[19])
    age = uptime - ticks / os.sysconf("SC_CLK_TCK")
    return min(_IMPORTED, time.time() - max(age, 0.0))


class Startup:
    """Measures a command's start; make one as soon as its imports are done."""

    def __init__(
        self, started: float | None = None, say: Callable[[str], None] = lambda text: None
    ):
        """Makes one.

        Args:
          started: when the command started, as `time.time()`; None: when the process did.
          say: prints a line as each part begins.
        """
        self._clock, self._say = compile_clock(), say
        self._started = process_start() if started is None else started
        self._parts = {"imports": time.time() - self._started}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts what is done inside as this part, but for compiling."""
        started, compiled = time.time(), self._clock.read().seconds
        if name in _ANNOUNCED and name not in self._parts:
            self._say(f"[{started - self._started:.0f} s] {_ANNOUNCED[name]} ...")
        self._parts.setdefault(name, 0.0)
        yield
        spent = time.time() - started - (self._clock.read().seconds - compiled)
        self._parts[name] = self._parts.get(name, 0.0) + max(spent, 0.0)

    def end(self) -> dict[str, float]:
        """Returns seconds by part, and their "total", up to now."""
        total = time.time() - self._started
        parts = {**self._parts, "compile": self._clock.read().seconds}
        parts["other"] = max(total - sum(parts.values()), 0.0)
        return {"total": total, **{name: parts.get(name, 0.0) for name in PARTS}}


def startup_line(seconds: Mapping[str, float]) -> str:
    """Says what `Startup.end` returned in one line, leaving out what took no time."""
    parts = ", ".join(f"{name} {seconds[name]:.1f}" for name in PARTS if seconds[name] >= 0.05)
    return f"First step done {seconds['total']:.1f} s after the command: {parts}."
