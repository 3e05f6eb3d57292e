"""Dynamic batching: examples sent by different clients at about the same time share a batch.

A batch starts as soon as it is full, or once its oldest example has waited `max_wait`. While the
model runs, in its own thread, the next batch is collected, so that no time is lost waiting under
load. Everything else runs in one asyncio event loop, without locks.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from prompt_tuning.errors import at_least

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFull(Exception):
    """The queue has no room for these examples; clients should try again later."""


class Closed(Exception):
    """The batcher accepts no more examples, because the server is stopping."""


@dataclass(frozen=True, kw_only=True)
class BatchingOptions:
    """Options of dynamic batching.

    Attributes:
      max_size: maximum number of examples in a batch.
      max_wait: maximum seconds that an example waits for others if the model is idle.
      max_queue: maximum number of waiting examples; more are rejected.

    Raises:
      UserError: a value is out of range.
    """

    max_size: int = 32
    max_wait: float = 0.005
    max_queue: int = 1024

    def __post_init__(self) -> None:
        at_least(1, {"max_size": self.max_size, "max_queue": self.max_queue})
        at_least(0, {"max_wait": self.max_wait})


@dataclass(frozen=True, kw_only=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    since: float
    result: "asyncio.Future[Result]"


class Batcher(Generic[Item, Result]):
    """Runs `run` on batches of submitted items.

    Args:
      run: returns the results of a batch's items, in order; called by one thread at a time.
      options: of batching.
      observe: called with each batch's size and duration in seconds.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        options: BatchingOptions,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ):
        self._run = run
        self._options = options
        self._observe = observe
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._changed = asyncio.Event()
        self._closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """Returns the number of waiting items."""
        return len(self._queue)

    @property
    def running(self) -> bool:
        """Whether items are accepted and processed."""
        return self._worker is not None and not self._worker.done() and not self._closing

    def start(self) -> None:
        """Starts processing; call it in the event loop."""
        self._worker = asyncio.create_task(self._work())

    async def submit(self, items: Sequence[Item]) -> list[Result]:
        """Returns the items' results, once all are available.

        Raises:
          QueueFull: there isn't room for all items; none is accepted.
          Closed: the batcher is closing.
          Exception: raised by `run` for a batch with any of them.
        """
        if not self.running:
            raise Closed
        if len(self._queue) + len(items) > self._options.max_queue:
            raise QueueFull
        loop = asyncio.get_running_loop()
        now = loop.time()
        waiting = [_Waiting(item=item, since=now, result=loop.create_future()) for item in items]
        self._queue.extend(waiting)
        self._changed.set()
        return list(await asyncio.gather(*(each.result for each in waiting)))

    async def close(self) -> None:
        """Accepts no more items, processes the waiting ones, and stops."""
        self._closing = True
        self._changed.set()
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := await self._next_batch():
            started = time.perf_counter()
            try:
                results = await loop.run_in_executor(
                    self._thread, self._run, [each.item for each in batch]
                )
            except Exception as error:
                # The waiting clients get the error; the next batch may well succeed.
                for each in batch:
                    if not each.result.done():
                        each.result.set_exception(error)
                continue
            self._observe(len(batch), time.perf_counter() - started)
            for each, result in zip(batch, results, strict=True):
                if not each.result.done():
                    each.result.set_result(result)

    async def _next_batch(self) -> list[_Waiting[Item, Result]]:
        """Returns at least one item, or none if the batcher is closing and the queue is empty."""
        while True:
            await self._full_or_due()
            size = min(len(self._queue), self._options.max_size)
            batch = [self._queue.popleft() for _ in range(size)]
            # Drop items of clients that have disconnected.
            wanted = [each for each in batch if not each.result.done()]
            if wanted or (self._closing and not self._queue):
                return wanted

    async def _full_or_due(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._closing and len(self._queue) < self._options.max_size:
            left = None
            if self._queue:
                left = self._queue[0].since + self._options.max_wait - loop.time()
                if left <= 0:
                    return
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), left)
            except TimeoutError:
                return
