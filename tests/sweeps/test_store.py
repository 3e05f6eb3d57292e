"""A sweep's folder, shared by workers."""

import os
import time

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.sweeps import store as stores
from prompt_tuning.sweeps.store import LEASE_SECONDS, SweepStore


@pytest.fixture
def store(tmp_path):
    return SweepStore(tmp_path / "sweep")


def test_finished_and_failed_runs_are_remembered(store):
    assert store.finished("a") is None
    store.fail("a", "no memory")
    store.fail("a", "no disk")
    assert SweepStore(store.folder).failure("a") == {"times": 2, "why": "no disk"}
    store.finish("a", {"score": 1})
    assert SweepStore(store.folder).finished("a") == {"score": 1}
    assert store.failure("a") is None, "a run that finished has failed no more"
    store.fail("b", "once")
    store.forget_failures("b")
    assert store.failure("b") is None


def test_a_part_is_one_worker_s(store):
    other = SweepStore(store.folder)
    with store.lease("part") as mine:
        assert mine
        with other.lease("part") as theirs:
            assert not theirs
        with other.lease("another") as theirs:
            assert theirs
    with other.lease("part") as theirs:
        assert theirs, "it is free again"


def test_a_lease_of_the_dead_is_taken_over(store):
    path = store.folder / "leases" / "part"
    path.write_text("somebody")
    with store.lease("part") as mine:
        assert not mine
    old = time.time() - LEASE_SECONDS - 1
    os.utime(path, (old, old))
    with store.lease("part") as mine:
        assert mine
        assert path.read_text() != "somebody"
    assert not list((store.folder / "leases").iterdir())


def test_a_lease_is_kept_while_the_work_goes_on(store, monkeypatch):
    monkeypatch.setattr(stores, "LEASE_SECONDS", 0.5)
    with store.lease("part") as mine:
        assert mine
        time.sleep(1.0)
        with SweepStore(store.folder).lease("part") as theirs:
            assert not theirs


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Can't write"):
        SweepStore(tmp_path / "file" / "sweep")
