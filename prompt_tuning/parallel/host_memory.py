"""Memory of the host that compiling leaves behind.

XLA's compiler allocates hundreds of megabytes for a large program and frees them in pieces, which
glibc keeps for later instead of giving them back; hardly any of it serves the program when it runs.
"""

import ctypes
import functools

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_LONG = 0.5
"""Seconds. A program that was compiled faster, or loaded from the cache, leaves little behind."""


@functools.cache
def return_memory_after_compiling() -> None:
    """Has what compiling a large program has freed given back to the system, before it runs.

    Where the C library can't do that (it is glibc that can), nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    def after(event: str, duration_secs: float, **_: object) -> None:
        if event == _COMPILED and duration_secs >= _LONG:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(after)
