"""Training checkpoints: the trained parameters, the optimizer's state and the run's progress.

The only user of Orbax. A checkpoint holds kilobytes: frozen weights never enter it, and random keys
and the order of the data follow from the seed and the step. Checkpoints are written in the
background and appear whole or not at all. One that was damaged later is noticed by a checksum and
reported, and the one before it is used. The processes of a run on many hosts save and restore
together, in a folder that all of them see.

Importing Orbax takes a second, so it waits until there is something to save or restore.
"""

import asyncio
import contextlib
import errno
import functools
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from prompt_tuning.errors import UserError

_log = logging.getLogger(__name__)

Progress = dict[str, Any]
"""JSON values: everything of a run that isn't an array."""


class Restored(NamedTuple):
    """One checkpoint's contents."""

    step: int
    state: PyTree
    progress: Progress


class CheckpointManager:
    """The checkpoints of a run, `<folder>/<step>/`. Use it as a context manager, or close it."""

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2):
        """Opens or makes `folder`, and removes what a killed save left.

        Args:
          folder: where the checkpoints are.
          keep: how many of the newest to keep; two survive damage to one.

        Raises:
          UserError: the folder can't be made or written.
        """
        self._folder = Path(folder).absolute()  # Orbax refuses a relative path
        self._keep = keep
        self._is_open = False
        with self._reporting_failure():
            self._folder.mkdir(parents=True, exist_ok=True)
            if any(self._folder.iterdir()):
                _ = self._orbax

    @functools.cached_property
    def _orbax(self) -> Any:
        import orbax.checkpoint as ocp

        self._is_open = True
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep, cleanup_tmp_directories=True, save_root_metadata=False
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def steps(self) -> list[int]:
        """Returns the steps that have a finished checkpoint, ascending."""
        return sorted(self._orbax.all_steps()) if self._is_open else []

    def save(self, step: int, state: PyTree, progress: Progress) -> None:
        """Starts writing a checkpoint, once the previous one is on disk.

        The state is copied first, so the next training step may reuse its memory.

        Raises:
          UserError: this or the previous checkpoint can't be written, as on a full disk.
        """
        import orbax.checkpoint as ocp

        state = jax.tree.map(jnp.copy, state)
        record = {"checksum": _checksum(state, progress), "progress": progress}
        with self._reporting_failure():
            self._orbax.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(record)
                ),
                force=True,
            )

    def restore_newest(self, like: PyTree) -> Restored | None:
        """Returns the newest undamaged checkpoint, or None if there are none.

        A damaged one is reported in one line and renamed to `<step>.damaged`. One that the system
        won't let us read may be whole, and stays where it is.

        Args:
          like: a state of the same structure, with the shapes, dtypes and shardings to restore to.

        Raises:
          UserError: the system refuses to read a checkpoint, or all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._restore(step, like)
            except Exception as error:  # Orbax raises a dozen kinds for damaged files
                number = _os_error_number(error)
                # A lost file, or something else in its place, is damage too.
                if number not in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
                    raise UserError(
                        f"Can't read the checkpoint {self._folder / str(step)}: "
                        f"{os.strerror(number)}. It was left as it is; the same command resumes "
                        "from it once it can be read."
                    ) from error
                _log.warning(
                    "The checkpoint %s is damaged (%s); using the one before it.",
                    self._folder / str(step),
                    _first_line(error),
                )
                self._put_aside(step)
        if steps:
            raise UserError(
                f"None of the checkpoints in {self._folder} can be read (steps "
                f"{', '.join(map(str, steps))}); they were put aside as <step>.damaged. "
                "Run the same command again to start from step 0."
            )
        return None

    def wait(self) -> None:
        """Returns once every checkpoint is on disk. Raises UserError if one can't be written."""
        if self._is_open:
            with self._reporting_failure():
                self._orbax.wait_until_finished()

    def close(self) -> None:
        """Waits, then frees what Orbax holds."""
        if self._is_open:
            with self._reporting_failure():
                self._orbax.close()

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        # After an error on one of many processes, it doesn't wait for others that may be gone.
        if kind is None or issubclass(kind, SystemExit) or jax.process_count() == 1:
            self.close()

    def _restore(self, step: int, like: PyTree) -> Restored:
        import orbax.checkpoint as ocp

        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        args = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        )
        with _patient_event_loops():
            items: Any = self._orbax.restore(step, args=args)
        if _checksum(items.state, items.progress["progress"]) != items.progress["checksum"]:
            raise ValueError("its contents don't match their checksum")
        # Orbax commits every array to its device. One that wasn't committed, such as the step count
        # beside a prompt that is sharded over a mesh, must not be.
        state = jax.tree.map(
            lambda new, old: new if old.committed else jnp.asarray(np.asarray(new)),
            items.state,
            like,
        )
        return Restored(step, state, items.progress["progress"])

    def _put_aside(self, step: int) -> None:
        damaged = self._folder / f"{step}.damaged"
        if jax.process_index() == 0:
            shutil.rmtree(damaged, ignore_errors=True)
            with self._reporting_failure():
                (self._folder / str(step)).rename(damaged)
        if jax.process_count() > 1:  # the others wait until it is renamed
            multihost_utils.sync_global_devices(f"{step}.damaged")
        with self._reporting_failure():
            self._orbax.reload()

    @contextlib.contextmanager
    def _reporting_failure(self) -> Iterator[None]:
        """Reports a failure of the file system in one line."""
        try:
            yield
        except (OSError, ValueError) as error:
            number = _os_error_number(error)
            if number is None:
                raise
            raise UserError(
                f"Can't write checkpoints to {self._folder}: {os.strerror(number)}. Free some "
                "space or set MODEL_DIR to a folder you can write to; the same command resumes "
                "from the last checkpoint."
            ) from error


class _PatientLoop(asyncio.SelectorEventLoop):
    """Closes once its tasks have ended; of their errors only the first is raised."""

    def close(self) -> None:
        if not self.is_closed():
            self.set_exception_handler(lambda loop, context: None)
            while tasks := asyncio.all_tasks(self):
                self.run_until_complete(asyncio.wait(tasks))
        super().close()


@contextlib.contextmanager
def _patient_event_loops() -> Iterator[None]:
    """Within it, new event loops wait for their tasks before they close.

    Orbax reads all arrays of a checkpoint at once, and closes its event loop at the first error.
    TensorStore's threads would report the other reads to a closed loop, each with a traceback.
    """
    make = asyncio.new_event_loop
    asyncio.new_event_loop = _PatientLoop
    try:
        yield
    finally:
        asyncio.new_event_loop = make


# Orbax logs each failure several times, with tracebacks, before it raises it; ours is the one line.
# It does so through absl, whose logger has to be made by absl to know where a message comes from.
absl.logging.get_absl_logger().addFilter(
    lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname
)


def _os_error_number(error: BaseException | None) -> int | None:
    """Returns the system's error number behind an error of Orbax, or None if there is none.

    TensorStore puts it into the text of a ValueError, which Orbax may wrap in another error.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error.errno
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return int(found[1])
        error = error.__cause__
    return None


def _checksum(state: PyTree, progress: Progress) -> int:
    checksum = zlib.crc32(json.dumps(progress, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    return checksum


def _first_line(error: BaseException) -> str:
    """Returns what went wrong at the root, without what Orbax and TensorStore were doing."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    # TensorStore says the cause last, after all that it was doing, and then the store's options.
    line, options, _ = first.partition(" [tensorstore_spec")
    return (line.rpartition(": ")[2] if options else line).rstrip(".")
