"""Host memory: returns freed memory to the system, and checks that there is enough.

glibc keeps freed memory instead of returning it to the system: tens of megabytes per thread that
reads a checkpoint, hundreds after XLA has compiled a large program. Little of it is reused.
"""

import contextlib
import ctypes
import functools
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxtyping

from prompt_tuning.errors import LESS_MEMORY, UserError

_COMPILED = "/jax/core/compile/backend_compile_duration"
_LARGE_PROGRAM_SECONDS = 0.5
"""A program that compiles faster, or is cached, leaves little memory behind."""


def return_freed_memory() -> None:
    """Makes glibc return freed memory to the system; does nothing with other C libraries."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def return_memory_after_compiling() -> None:
    """Makes every large compilation return its freed memory to the system afterwards."""

    def after(event: str, duration_secs: float, **_: object) -> None:
        if event == _COMPILED and duration_secs >= _LARGE_PROGRAM_SECONDS:
            return_freed_memory()

    jax.monitoring.register_event_duration_secs_listener(after)


_checked: "weakref.WeakKeyDictionary[Any, set[Any]]" = weakref.WeakKeyDictionary()


def check_memory(compiled_function: Any, *args: Any) -> None:
    """Checks that a call of a jitted function fits in the free memory.

    On CPUs only, where the system would kill the process silently; other devices raise an error.
    The function is compiled once for these shapes; calling it doesn't compile again.

    Raises:
      UserError: its results and temporaries exceed the free memory.
    """
    if jax.default_backend() != "cpu" or not hasattr(compiled_function, "lower"):
        return
    shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in jax.tree.leaves(args))
    done = _checked.setdefault(compiled_function, set())
    if shapes in done:
        return
    traced = compiled_function.trace(*args)
    with _shapes_unchecked():  # JAX replaces a dataclass's arrays by descriptions
        lowered = traced.lower()
    memory = lowered.compile().memory_analysis()
    done.add(shapes)
    free = free_memory()
    if memory is None or free is None:
        return
    needed = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    if needed > free:
        raise UserError(
            f"Out of memory: a batch needs {needed / 2**30:,.1f} GiB in addition to the weights, "
            f"but only {free / 2**30:,.1f} GiB are free. {LESS_MEMORY}"
        )


@contextlib.contextmanager
def _shapes_unchecked() -> Iterator[None]:
    """Disables the checks of shape annotations, which tests enable, within the block."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def free_memory() -> int | None:
    """Returns the bytes of host memory available to this process, or None if unknown."""
    free = [
        int(line.split()[1]) * 1024
        for line in _lines("/proc/meminfo")
        if line.startswith("MemAvailable:")
    ]
    # The container's limit.
    limit, used = (
        next(iter(_lines(f"/sys/fs/cgroup/memory.{name}")), "") for name in ("max", "current")
    )
    if limit.isdigit() and used.isdigit():
        free.append(int(limit) - int(used) + _file_cache())
    return min(free, default=None)


def _file_cache() -> int:
    """Returns the file cache, which counts as a container's memory but is reclaimed on demand."""
    fields = dict(line.split() for line in _lines("/sys/fs/cgroup/memory.stat"))
    return int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
