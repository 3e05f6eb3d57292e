"""Number and duration of compilations, from JAX's monitoring events.

Tracing, lowering, compiling and loading from the persistent cache all count. JAX reports the time
of nested tracing twice; here it counts once.
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
    """Compilations of this process so far.

    Attributes:
      programs: number of programs compiled or loaded from the cache.
      from_cache: number of programs loaded from the cache.
      seconds: total time.
    """

    programs: int
    from_cache: int
    seconds: float


class CompileClock:
    """Sums the events that JAX reports; `compile_clock()` returns the registered instance."""

    def __init__(self):
        self._lock = threading.Lock()
        self._spans: list[tuple[float, float]] = []
        self._programs, self._from_cache, self._seconds = 0, 0, 0.0

    def read(self) -> Compiled:
        """Returns the totals so far."""
        with self._lock:
            return Compiled(self._programs, self._from_cache, self._seconds)

    def add_span(self, event: str, start_time: float, end_time: float, **_: object) -> None:
        """Adds a span; JAX reports it when it ends, after the spans inside it."""
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
        """Counts an event."""
        with self._lock:
            self._from_cache += event == _FROM_CACHE


@functools.cache
def compile_clock() -> CompileClock:
    """Returns the process's clock, registered with JAX by the first call."""
    clock = CompileClock()
    jax.monitoring.register_event_time_span_listener(clock.add_span)
    jax.monitoring.register_event_listener(clock.add_event)
    return clock
