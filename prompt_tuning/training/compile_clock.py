"""How much is compiled, and how long it takes, as JAX itself reports it.

Tracing a Python function, lowering it, compiling it or loading it from the persistent cache all
count. A function traced inside another is reported twice; here a second is counted once.
"""

import functools
import threading
from typing import NamedTuple

import jax

_COMPILING = "/jax/core/compile/"
_COMPILED = f"{_COMPILING}backend_compile_duration"
_FROM_CACHE = "/jax/compilation_cache/cache_hits"
_SPANS_KEPT = 1000


class Compiled(NamedTuple):
    """What this process has compiled so far.

    programs: compiled, or loaded from the cache.
    from_cache: the latter.
    seconds: spent on all of it.
    """

    programs: int
    from_cache: int
    seconds: float


class CompileClock:
    """Adds up what JAX reports; `compile_clock()` has the one that listens."""

    def __init__(self):
        self._lock = threading.Lock()
        self._spans: list[tuple[float, float]] = []
        self._programs, self._from_cache, self._seconds = 0, 0, 0.0

    def read(self) -> Compiled:
        """Returns what has been compiled so far."""
        with self._lock:
            return Compiled(self._programs, self._from_cache, self._seconds)

    def add_span(self, event: str, start_time: float, end_time: float, **_: object) -> None:
        """Takes a span of JAX's, at its end; those inside it have been taken before."""
        if not event.startswith(_COMPILING):
            return
        with self._lock:
            self._programs += event == _COMPILED
            start, end = start_time, end_time
            while self._spans and self._spans[-1][0] >= start:
                inner_start, inner_end = self._spans.pop()
                self._seconds -= inner_end - inner_start
            # Two threads may compile at once.
            start = max(start, self._spans[-1][1]) if self._spans else start
            if end > start:
                self._spans.append((start, end))
                self._seconds += end - start
            del self._spans[:-_SPANS_KEPT]

    def add_event(self, event: str, **_: object) -> None:
        """Takes an event of JAX's."""
        with self._lock:
            self._from_cache += event == _FROM_CACHE


@functools.cache
def compile_clock() -> CompileClock:
    """Returns the process's clock, which listens from the first call on."""
    clock = CompileClock()
    jax.monitoring.register_event_time_span_listener(clock.add_span)
    jax.monitoring.register_event_listener(clock.add_event)
    return clock
