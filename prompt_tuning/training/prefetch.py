"""Makes the next batches on a thread while the devices work on this one.

A batch is a pure function of its step (`data/batching.py`), so nothing is lost or repeated where
a run stops with batches waiting: they are made again on resuming.
"""

import queue
import threading
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

_SECONDS_TO_STOP = 5.0


class _Made(NamedTuple, Generic[T]):
    batch: T | None
    error: BaseException | None


class Prefetcher(Generic[T]):
    """Calls a function of the step, a few steps ahead, in order; close it at the end."""

    def __init__(self, batches: Callable[[int], T], *, first: int, end: int, ahead: int):
        """Starts on step `first`, unless `ahead` is 0: then each batch is made when asked for.

        Args:
          batches: step -> batch; called on the thread alone, or, with `ahead` 0, never on one.
          first: the first step.
          end: the step before which to stop.
          ahead: how many batches may wait, beside the one being used.
        """
        self._batches, self._next = batches, first
        self._room = threading.Semaphore(ahead)
        self._ready: queue.SimpleQueue[_Made[T]] = queue.SimpleQueue()
        self._stopping = False
        self._thread = None
        if ahead:
            # A daemon: whatever a batch may be waiting for, it doesn't keep the process alive.
            self._thread = threading.Thread(
                target=self._work, args=(range(first, end),), name="prefetch", daemon=True
            )
            self._thread.start()

    def next(self) -> T:
        """Returns the batch of the next step; raises what making it raised."""
        if self._thread is None:
            batch = self._batches(self._next)
            self._next += 1
            return batch
        made = self._ready.get()
        self._room.release()
        if made.error is not None:
            raise made.error
        return made.batch  # pyright: ignore[reportReturnType] - one of the two is there

    def close(self) -> None:
        """Makes no more; waits for a batch that is being made, though not forever."""
        self._stopping = True
        self._room.release()
        if self._thread is not None:
            self._thread.join(_SECONDS_TO_STOP)

    def _work(self, steps: range) -> None:
        for step in steps:
            self._room.acquire()
            if self._stopping:
                return
            try:
                made = _Made(self._batches(step), None)
            except BaseException as error:  # raised where the batch is asked for
                self._ready.put(_Made(None, error))
                return
            self._ready.put(made)
