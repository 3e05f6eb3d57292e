"""Utilization of a run's machine; docs/performance.md explains each field.

    input_wait            share of time spent waiting for a batch
    compiled_programs     programs compiled since the last row, or loaded from the cache
    compile_seconds       time of these compilations
    mfu                   model FLOPs utilization: share of the accelerators' peak, if known
    device_memory_bytes   peak memory of a device, if reported

Each row of losses has these fields. A process's first row also has `startup/...`, in seconds.
"""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from prompt_tuning.files import FilePath
from prompt_tuning.training.compile_clock import compile_clock
from prompt_tuning.training.flops import matmul_flops
from prompt_tuning.training.startup import Startup


@dataclasses.dataclass(frozen=True, kw_only=True)
class Monitoring:
    """Options of monitoring.

    Attributes:
      startup: reported after the first step, unless None.
      peak_flops: total FLOPs per second of all devices; None if unknown.
      profile_steps: number of steps to record with the profiler.
      profile_folder: of the profile; None for the first run's folder.
    """

    startup: Startup | None = None
    peak_flops: float | None = None
    profile_steps: int = 0
    profile_folder: FilePath | None = None


class StepFlops:
    """Counts the FLOPs of a step's matrix products, once per program and shapes."""

    def __init__(self, *, counted: bool):
        self._counted = counted
        self._found: dict[Any, int] = {}

    def of(self, train_step: Any, *arguments: Any) -> int:
        """Returns the FLOPs of a compiled step on these arguments; 0 unless `counted`."""
        if not self._counted:
            return 0
        shapes = (id(train_step), *(np.shape(leaf) for leaf in jax.tree.leaves(arguments)))
        if shapes not in self._found:
            self._found[shapes] = matmul_flops(train_step.trace(*arguments).jaxpr)
        return self._found[shapes]


class Monitor:
    """Measures a run from one row to the next.

    If several runs train together, each one's `mfu` counts its own steps only; the devices' MFU is
    the sum.
    """

    def __init__(self, peak_flops: float | None):
        self._peak = peak_flops
        self._clock = compile_clock()
        self._waited_in_all = self._seconds_in_all = 0.0
        self.start_window()

    def start_window(self) -> None:
        """Starts counting for the next row."""
        self._waited, self._flops = 0.0, 0
        self._compiled = self._clock.read()

    @contextlib.contextmanager
    def waiting_for_input(self) -> Iterator[None]:
        """Counts the time inside as waiting for a batch."""
        started = time.monotonic()
        yield
        self._waited += time.monotonic() - started

    def count_step(self, flops: int) -> None:
        """Adds the FLOPs of a step."""
        self._flops += flops

    def end_window(self, seconds: float) -> dict[str, float | int]:
        """Returns the fields of a row whose steps took `seconds`; starts the next window."""
        compiled = self._clock.read()
        self._waited_in_all += self._waited
        self._seconds_in_all += seconds
        row: dict[str, float | int] = {
            "input_wait": self._waited / seconds,
            "compiled_programs": compiled.programs - self._compiled.programs,
            "compile_seconds": compiled.seconds - self._compiled.seconds,
        }
        if self._peak is not None:
            row["mfu"] = self._flops / seconds / self._peak
        memory = device_memory_bytes()
        if memory is not None:
            row["device_memory_bytes"] = memory
        self.start_window()
        return row

    def summary(self) -> dict[str, Any]:
        """Returns the fields of the run's summary, over this process's lifetime."""
        compiled = self._clock.read()
        return {
            "input_wait": self._waited_in_all / self._seconds_in_all
            if self._seconds_in_all
            else None,
            "compile": compiled._asdict(),
            "device_memory_bytes": device_memory_bytes(),
        }


def device_memory_bytes() -> int | None:
    """Returns the maximum peak memory over this process's devices; None if unknown (CPU)."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in stats if found]
    return max(peaks, default=None)
