"""Records a profile of a few steps with `jax.profiler` in the run folder."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

WARM_UP = 5
"""Number of steps before recording starts, because they compile."""


class Profile:
    """A trace of a few steps.

    Args:
      folder: of the trace.
      steps: number of steps to record; may be 0.
      end: the run's last step.
    """

    def __init__(self, folder: Path, steps: int, *, end: int):
        self._folder, self._steps, self._end = folder, steps, end
        self._step: int | None = None
        self._from = self._until = 0
        self._recording = False

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Wraps each step; starts the recording before the first step to record.

        Args:
          step: index of the first step, from 0; later calls count from there.
        """
        if self._step is None:
            self._step = step
            self._from = max(step, min(step + WARM_UP, self._end - self._steps))
            self._until = min(self._from + self._steps, self._end)
        if self._step == self._from < self._until:
            # A browser can open Perfetto's file without any installation.
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._recording = True
        if self._recording:
            with jax.profiler.StepTraceAnnotation("train", step_num=self._step):
                yield
        else:
            yield
        self._step += 1

    def end_step(self, metrics: Any, say: Callable[[str], None]) -> None:
        """Ends the recording once the metrics of its last step are computed; prints its path."""
        if self._recording and self._step == self._until:
            jax.block_until_ready(metrics)
            self.close()
            found = sorted(self._folder.rglob("perfetto_trace.json.gz"))
            say(
                f"Recorded steps {self._from + 1} to {self._until}: open {found[-1]} at "
                "https://ui.perfetto.dev, or run `pip install tensorboard xprof` and "
                f"`tensorboard --logdir {self._folder}`."
            )

    def close(self) -> None:
        """Ends a recording in progress."""
        if self._recording:
            self._recording = False
            jax.profiler.stop_trace()
