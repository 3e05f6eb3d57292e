"""When a batch leaves, who gets which result, and what happens to those it goes wrong for."""

import asyncio
import threading
import time

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.serving.batching import Batcher, BatchingOptions, Closed, QueueFull


class Model:
    """Squares numbers, and remembers the batches; an odd one out raises."""

    def __init__(self):
        self.batches = []
        self.free = threading.Event()
        self.free.set()

    def __call__(self, items):
        self.free.wait(10)
        self.batches.append(list(items))
        if -1 in items:
            raise ValueError("minus one")
        return [item * item for item in items]


def play(scenario, **options):
    """Runs `scenario(batcher, model)` in an event loop, and closes the batcher after it."""
    model = Model()

    async def main():
        batcher = Batcher(model, BatchingOptions(**options))
        batcher.start()
        try:
            return await scenario(batcher, model)
        finally:
            model.free.set()
            await batcher.close()

    return asyncio.run(asyncio.wait_for(main(), 30)), model


async def all_of(*submissions):
    return await asyncio.gather(*submissions, return_exceptions=True)


def test_requests_share_a_batch_and_each_gets_its_own():
    async def scenario(batcher, model):
        return await all_of(*(batcher.submit([n, -2 * n]) for n in range(1, 5)))

    results, model = play(scenario, max_size=8, max_wait=10.0)
    assert results == [[n * n, 4 * n * n] for n in range(1, 5)]
    assert len(model.batches) == 1, "full, so it left without waiting"


def test_a_lone_example_waits_no_longer_than_it_must():
    async def scenario(batcher, model):
        started = time.monotonic()
        await batcher.submit([3])
        return time.monotonic() - started

    seconds, _ = play(scenario, max_size=8, max_wait=0.05)
    assert 0.04 < seconds < 5


def test_a_batch_is_never_larger_than_it_may_be():
    async def scenario(batcher, model):
        return await batcher.submit(list(range(10)))

    results, model = play(scenario, max_size=4, max_wait=0.0)
    assert results == [n * n for n in range(10)]
    assert [len(batch) for batch in model.batches] == [4, 4, 2]


def test_a_full_queue_turns_the_whole_request_away():
    async def scenario(batcher, model):
        model.free.clear()
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.05)  # the model has it
        second = asyncio.create_task(batcher.submit([2, 3]))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await batcher.submit([4, 5])
        third = asyncio.create_task(batcher.submit([6]))
        await asyncio.sleep(0)
        model.free.set()
        return await all_of(first, second, third)

    results, model = play(scenario, max_size=1, max_wait=0.0, max_queue=3)
    assert results == [[1], [4, 9], [36]]
    assert 4 not in [item for batch in model.batches for item in batch]


def test_a_failed_batch_is_told_and_the_next_one_runs():
    async def scenario(batcher, model):
        failed = await all_of(batcher.submit([1]), batcher.submit([-1]))
        return failed, await batcher.submit([5])

    (failed, after), _ = play(scenario, max_size=2, max_wait=1.0)
    assert all(isinstance(error, ValueError) for error in failed)
    assert after == [25]


def test_who_has_left_is_not_worked_for():
    async def scenario(batcher, model):
        model.free.clear()
        first = asyncio.create_task(batcher.submit([1]))
        await asyncio.sleep(0.05)
        left = asyncio.create_task(batcher.submit([2]))
        stayed = asyncio.create_task(batcher.submit([3]))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        model.free.set()
        return await all_of(first, stayed)

    results, model = play(scenario, max_size=4, max_wait=0.0)
    assert results == [[1], [9]]
    assert model.batches == [[1], [3]]


def test_closing_answers_what_waits_and_takes_no_more():
    async def scenario(batcher, model):
        model.free.clear()
        waiting = [asyncio.create_task(batcher.submit([n])) for n in range(5)]
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Closed):
            await batcher.submit([9])
        model.free.set()
        await closing
        return await all_of(*waiting)

    results, _ = play(scenario, max_size=2, max_wait=60.0)
    assert results == [[n * n] for n in range(5)]


@pytest.mark.parametrize("options", [{"max_size": 0}, {"max_wait": -1.0}, {"max_queue": 0}])
def test_options_out_of_range(options):
    (name,) = options
    with pytest.raises(UserError, match=f"^{name} is"):
        BatchingOptions(**options)
