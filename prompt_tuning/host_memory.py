"""Memory of the host that has been freed and yet is held.

glibc keeps what is freed in pieces for later instead of giving it back to the system: tens of
megabytes for each thread that reads a checkpoint, hundreds after XLA has compiled a large program.
Hardly any of it serves what comes next.
"""

import ctypes
import functools

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_LARGE_PROGRAM_SECONDS = 0.5
"""One that is compiled faster, or loaded from the cache, leaves little behind."""


def return_freed_memory() -> None:
    """Has glibc give back to the system what has been freed; elsewhere nothing is done."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@functools.cache
def return_memory_after_compiling() -> None:
    """Has what compiling a large program has freed given back from here on, before it runs."""

    def after(event: str, duration_secs: float, **_: object) -> None:
        if event == _COMPILED and duration_secs >= _LARGE_PROGRAM_SECONDS:
            return_freed_memory()

    jax.monitoring.register_event_duration_secs_listener(after)
