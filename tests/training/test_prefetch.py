"""Batches made ahead: the same ones in the same order, and errors where they are asked for."""

import threading

import pytest

from prompt_tuning.training.prefetch import Prefetcher


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_batches_come_in_order_from_the_first_step(ahead):
    batches = Prefetcher(lambda step: step * 10, first=4, end=9, ahead=ahead)
    assert [batches.next() for _ in range(5)] == [40, 50, 60, 70, 80]
    batches.close()


def test_no_more_are_made_than_may_wait():
    made, enough = [], threading.Event()

    def make(step):
        made.append(step)
        if len(made) == 3:
            enough.set()
        return step

    batches = Prefetcher(make, first=0, end=100, ahead=2)
    batches.next()
    assert enough.wait(10)
    batches._thread.join(0.1)
    assert made == [0, 1, 2], "one in use, two waiting"
    batches.close()
    assert not batches._thread.is_alive()


def test_they_are_made_while_another_thread_works():
    threads = set()

    def make(step):
        threads.add(threading.current_thread().name)
        return step

    batches = Prefetcher(make, first=0, end=2, ahead=1)
    assert [batches.next(), batches.next()] == [0, 1]
    batches.close()
    assert threads == {"prefetch"}


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_is_raised_at_its_step(ahead):
    def make(step):
        if step == 2:
            raise ValueError("no third batch")
        return step

    batches = Prefetcher(make, first=0, end=9, ahead=ahead)
    assert [batches.next(), batches.next()] == [0, 1]
    with pytest.raises(ValueError, match="no third batch"):
        batches.next()
    batches.close()


def test_closing_does_not_wait_for_room():
    batches = Prefetcher(lambda step: step, first=0, end=10**9, ahead=1)
    batches.close()
    assert not batches._thread.is_alive()
