"""Makes the next batches on a thread while the devices compute.

A batch is a pure function of its step (`data/batching.py`), so no data is lost or repeated if a run
stops with batches in the queue: a resumed run makes them again.
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
    """Calls a function of the step in order, a few steps ahead; close it at the end."""

    def __init__(self, batches: Callable[[int], T], *, first: int, end: int, ahead: int):
        """Starts the thread with step `first`; if `ahead` is 0, `next` makes each batch instead.

        Args:
          batches: step -> batch; called on the thread only, or by `next` only if `ahead` is 0.
          first: the first step.
          end: one past the last step.
          ahead: maximum number of batches in the queue.
        """
        self._batches, self._next = batches, first
        self._room = threading.Semaphore(ahead)
        self._ready: queue.SimpleQueue[_Made[T]] = queue.SimpleQueue()
        self._stopping = False
        self._thread = None
        if ahead:
            # A daemon, so that a blocked batch doesn't keep the process alive.
            self._thread = threading.Thread(
                target=self._work, args=(range(first, end),), name="prefetch", daemon=True
            )
            self._thread.start()

    def next(self) -> T:
        """Returns the next step's batch, or raises the error that `batches` raised."""
        if self._thread is None:
            batch = self._batches(self._next)
            self._next += 1
            return batch
        made = self._ready.get()
        self._room.release()
        if made.error is not None:
            raise made.error
        return made.batch  # pyright: ignore[reportReturnType] - either the batch or the error is set

    def close(self) -> None:
        """Stops the thread; waits a few seconds for a batch in progress."""
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
            except BaseException as error:  # raised by `next`
                self._ready.put(_Made(None, error))
                return
            self._ready.put(made)
