"""Records what the devices do in a few steps, with `jax.profiler`, into the run folder."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax

WARM_UP = 5
"""Steps made before recording starts: they compile."""


class Profile:
    """A trace of `steps` steps, or none if that is 0."""

    def __init__(self, folder: Path, steps: int, *, first: int, end: int):
        """Args: where the trace goes; how many steps; the run's next step and its last one."""
        self._folder = folder
        self._from = max(first, min(first + WARM_UP, end - steps))
        self._until = min(self._from + steps, end)
        self._recording = False

    def step(self, step: int) -> AbstractContextManager[object]:
        """Enter this around step `step`, from 0; it starts the recording when it is time."""
        if step == self._from < self._until:
            # Perfetto's file is what a browser opens with nothing installed.
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._recording = True
        if not self._recording:
            return contextlib.nullcontext()
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def step_made(self, steps: int, result: Any, say: Callable[[str], None]) -> None:
        """Ends the recording if this many steps, whose last has this result, are enough."""
        if self._recording and steps == self._until:
            jax.block_until_ready(result)
            self.close()
            found = sorted(self._folder.rglob("perfetto_trace.json.gz"))
            say(
                f"Recorded steps {self._from + 1} to {self._until}: open {found[-1]} at "
                "https://ui.perfetto.dev, or run `pip install tensorboard xprof` and "
                f"`tensorboard --logdir {self._folder}`."
            )

    def close(self) -> None:
        """Ends a recording that is under way."""
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
