"""Records a profile of a few steps with `jax.profiler` in the run folder."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from prompt_tuning.buckets import storage
from prompt_tuning.files import FilePath

WARM_UP = 5
"""Number of steps before recording starts, because they compile."""


class Profile:
    """A trace of a few steps.

    Args:
      folder: of the trace.
      steps: number of steps to record; may be 0.
      end: the run's last step.
    """

    def __init__(self, folder: FilePath, steps: int, *, end: int):
        self._folder, self._steps, self._end = folder, steps, end
        # JAX writes to no bucket.
        self._temporary = None if isinstance(folder, Path) else tempfile.TemporaryDirectory()
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
            where = self._temporary.name if self._temporary else str(self._folder)
            jax.profiler.start_trace(where, create_perfetto_trace=True)
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
            found = sorted(self._folder.glob("plugins/profile/*/perfetto_trace.json.gz"))
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
            if self._temporary:
                storage().put(f"{self._temporary.name}/", f"{self._folder}/", recursive=True)
