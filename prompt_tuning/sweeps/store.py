"""A sweep's folder, which several workers can share.

    runs/NAME.json       a finished run: its settings, its folder, its summary
    failures/NAME.json   the number of failures of a run, and the reason
    leases/PART          the worker on a part of the sweep, which touches the file while it works;
                         after `LEASE_SECONDS` without a touch, any worker may take over the part
    parts/PART/          the folder of the run or population, and the log of the command

Files are written atomically. A worker takes a lease by creating its file, after renaming an expired
one (in a bucket, removing it); only one worker can succeed.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prompt_tuning import buckets
from prompt_tuning.files import FilePath, as_path, atomic_write, writing

LEASE_SECONDS = 300
"""The age at which another worker may take over a lease."""

FIX = "Free some space, or give another --folder."


class SweepStore:
    """The records of a sweep's runs.

    Args:
      folder: created if it doesn't exist.

    Raises:
      UserError: the folder can't be created.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = as_path(folder)
        with writing(self.folder, fix=FIX):
            for name in ("runs", "failures", "leases", "parts"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)

    def part(self, name: str) -> FilePath:
        """Returns the folder of a part."""
        return self.folder / "parts" / name

    def finished(self, run: str) -> Mapping[str, Any] | None:
        """Returns the record of a finished run, or None."""
        return self._read("runs", run)

    def finish(self, run: str, record: Mapping[str, Any]) -> None:
        """Records that a run has finished."""
        self._write("runs", run, record)
        (self.folder / "failures" / f"{run}.json").unlink(missing_ok=True)

    def failure(self, run: str) -> Mapping[str, Any] | None:
        """Returns the record of a run's failures, or None."""
        return self._read("failures", run)

    def fail(self, run: str, why: str) -> None:
        """Records a failure of a run."""
        before = self.failure(run)
        times = 1 + (before["times"] if before else 0)
        self._write("failures", run, {"times": times, "why": why})

    def forget_failures(self, run: str) -> None:
        """Removes the record of a run's failures."""
        (self.folder / "failures" / f"{run}.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def lease(self, part: str) -> Iterator[bool]:
        """Holds the lease of a part while entered; yields False if another worker has it."""
        path = self.folder / "leases" / part
        owner = f"{os.uname().nodename} {os.getpid()} {uuid.uuid4().hex}"
        if not self._take(path, owner):
            yield False
            return
        ended = threading.Event()

        def keep() -> None:
            while not ended.wait(LEASE_SECONDS / 10):
                with contextlib.suppress(OSError):
                    buckets.touch(path) if buckets.in_bucket(path) else os.utime(path)

        keeper = threading.Thread(target=keep, daemon=True)
        keeper.start()
        try:
            yield True
        finally:
            ended.set()
            keeper.join()
            with contextlib.suppress(OSError):
                if path.read_text() == owner:
                    path.unlink()

    def _take(self, path: FilePath, owner: str) -> bool:
        if not isinstance(path, Path):
            buckets.remove_if_older(path, LEASE_SECONDS)
            return buckets.create(path, owner.encode())
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEASE_SECONDS:
                aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
                path.rename(aside)
                if time.time() - aside.stat().st_mtime <= LEASE_SECONDS:
                    # Another worker took it over in the meantime: restore its lease.
                    with contextlib.suppress(FileExistsError):
                        os.link(aside, path)
                aside.unlink()
        try:
            with open(path, "x") as file:
                file.write(owner)
        except FileExistsError:
            return False
        return True

    def _read(self, kind: str, run: str) -> Mapping[str, Any] | None:
        try:
            return json.loads((self.folder / kind / f"{run}.json").read_text())
        except FileNotFoundError:
            return None

    def _write(self, kind: str, run: str, record: Mapping[str, Any]) -> None:
        with atomic_write(self.folder / kind / f"{run}.json", fix=FIX) as file:
            file.write(json.dumps(record, indent=1).encode())
