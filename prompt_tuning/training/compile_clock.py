"""How many programs are compiled, and how long it takes, as JAX reports it.

Tracing, lowering, compiling and loading from the persistent cache all count. JAX reports the time
of a function traced inside another twice; here it counts once.
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

    programs: how many, compiled or loaded from the cache.
    from_cache: how many were loaded from the cache.
    seconds: the time all of it took.
    """

    programs: int
    from_cache: int
    seconds: float


class CompileClock:
    """Sums what JAX reports; `compile_clock()` returns the one that listens."""

    def __init__(self):
        self._lock = threading.Lock()
        self._spans: list[tuple[float, float]] = []
        self._programs, self._from_cache, self._seconds = 0, 0, 0.0

    def read(self) -> Compiled:
        """Returns what has been compiled so far."""
        with self._lock:
            return Compiled(self._programs, self._from_cache, self._seconds)

    def add_span(self, event: str, start_time: float, end_time: float, **_: object) -> None:
        """Adds a span that JAX reports at its end, after the spans inside it."""
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
        """Counts an event that JAX reports."""
        with self._lock:
            self._from_cache += event == _FROM_CACHE


@functools.cache
def compile_clock() -> CompileClock:
    """Returns the process's clock, which listens from the first call on."""
    clock = CompileClock()
    jax.monitoring.register_event_time_span_listener(clock.add_span)
    jax.monitoring.register_event_listener(clock.add_event)
    return clock
