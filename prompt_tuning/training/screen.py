"""Progress of a training run: a bar on a terminal, elsewhere a line every few seconds."""

import io
import os
import sys
import time
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from tqdm import tqdm

from prompt_tuning.training.logging import Row, Writer

_SECONDS_BETWEEN_LINES = 10.0
_INPUT_WAIT_SHOWN = 0.02  # share of the time; less is negligible


def scores_text(metrics: Mapping[str, float], score: float | None) -> str:
    """Returns metrics and their score; a single metric, or its negative, isn't repeated."""
    text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    if score is None or [abs(value) for value in metrics.values()] == [abs(score)]:
        return text
    return f"{text}, score {score:.4f}" if text else f"score {score:.4f}"


@runtime_checkable
class RunScreen(Writer, Protocol):
    """A run's own screen, or its part of a population's screen."""

    def advance(self) -> None:
        """Counts one more step."""
        ...

    def line(self, text: str) -> None:
        """Prints a line."""
        ...


class Screen:
    """Loss, speed and time left, on standard error; every score on its own line."""

    def __init__(
        self,
        step: int,
        total_steps: int,
        stream: io.TextIOBase | None = None,
        *,
        shown: bool = True,
    ):
        """Starts at a step; only the first of several processes should be `shown`."""
        self._stream = stream or (sys.stderr if shown else open(os.devnull, "w"))  # noqa: SIM115
        self._first_step, self._total_steps = step, total_steps
        self._started = time.monotonic()
        self._last_line = float("-inf")
        self._advanced, self._score = False, ""
        self._bar = None
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._bar = tqdm(
                initial=step,
                total=total_steps,
                unit="step",
                file=self._stream,
                dynamic_ncols=True,
            )

    def advance(self) -> None:
        """Moves the bar by one step. The first one compiles, so speed is measured from its end."""
        if not self._advanced:
            self._advanced = True
            self._started, self._first_step = time.monotonic(), self._first_step + 1
            if self._bar is not None:
                self._bar.reset(self._total_steps)
                self._bar.initial = self._bar.n = self._first_step
                self._bar.refresh()
        elif self._bar is not None:
            self._bar.update()

    def write(self, row: Row) -> None:
        """Shows scores on a line; a loss in the bar, or on a line if the last one is old."""
        step = int(row["step"])
        metrics = {
            name.removeprefix("eval/"): value
            for name, value in row.items()
            if name.startswith("eval/")
        }
        if metrics:
            score = metrics.pop("score", None)
            self._score = "" if score is None else f"score {score:.4f}, "
            self.line(f"step {step:,}: {scores_text(metrics, score)}")
            return
        shown = self._score if self._bar is not None else ""  # otherwise it has its own line
        text = (
            f"loss {row['loss']:.4f}, {shown}{row['examples_per_second']:.1f} examples/s, "
            f"{row['tokens_per_second']:,.0f} tokens/s"
        )
        if "mfu" in row:
            text += f", MFU {row['mfu']:.1%}"
        if row.get("input_wait", 0) > _INPUT_WAIT_SHOWN:
            text += f", {row['input_wait']:.0%} of it waiting for input"
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            left = tqdm.format_interval(self._seconds_left(step))
            self.line(f"step {step:,} of {self._total_steps:,}: {text}, {left} left")

    def line(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Closes the bar and leaves it on the screen."""
        if self._bar is not None:
            self._bar.close()

    def _seconds_left(self, step: int) -> float:
        made = max(step - self._first_step, 1)
        per_step = (time.monotonic() - self._started) / made
        return (self._total_steps - step) * per_step


class PopulationScreen(Screen):
    """One bar, or a line every few seconds, for the steps of many runs."""

    def __init__(
        self, total_steps: int, stream: io.TextIOBase | None = None, *, shown: bool = True
    ):
        """Starts with the total number of steps of all runs."""
        super().__init__(0, total_steps, stream, shown=shown)
        self._made = 0

    def advance(self) -> None:
        """Moves the bar by one step of one run."""
        super().advance()
        self._made += 1

    def show(self, running: int) -> None:
        """Prints the progress if the last line is old; `running` members are training now."""
        old = time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES
        if self._bar is None and self._made and old:
            speed = self._made / (time.monotonic() - self._started)
            left = tqdm.format_interval(self._seconds_left(self._made))
            self.line(
                f"{self._made:,} of {self._total_steps:,} steps of all members, {running} training "
                f"now: {speed:.2f} steps/s, at most {left} left"
            )

    def member(self, name: str) -> "MemberScreen":
        """Returns one run's part of the screen."""
        return MemberScreen(self, name)


class MemberScreen:
    """A run's part of a population's screen, which shows all scores together."""

    def __init__(self, shared: PopulationScreen, name: str):
        self._shared, self._name = shared, name

    def advance(self) -> None:
        """Moves the shared bar."""
        self._shared.advance()

    def write(self, row: Row) -> None:
        """Shows nothing: the row is in the member's own files."""

    def line(self, text: str) -> None:
        """Prints a line after the member's name."""
        self._shared.line(f"{self._name}: {text}")

    def close(self) -> None:
        """Leaves the shared screen open for the others."""
