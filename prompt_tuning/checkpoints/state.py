"""Training checkpoints: the trainable parameters, the optimizer's state and the run's progress.

The only user of Orbax. A checkpoint takes kilobytes: it never contains frozen weights, and random
keys and data order follow from the seed and the step. Checkpoints are written atomically in the
background. One that was damaged later is detected by its checksum and reported, and the previous
one is used. All processes of a run save and restore together, in a shared folder.

Importing Orbax takes a second, so it is deferred until there is something to save or restore.
"""

import asyncio
import contextlib
import errno
import functools
import json
import logging
import os
import re
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from prompt_tuning.buckets import failure
from prompt_tuning.errors import UserError
from prompt_tuning.files import absolute, as_path, remove_folder

_log = logging.getLogger(__name__)

Progress = dict[str, Any]
"""JSON values: all state of a run except arrays."""


class Restored(NamedTuple):
    """The contents of a checkpoint."""

    step: int
    state: PyTree
    progress: Progress


class CheckpointManager:
    """The checkpoints of a run, `<folder>/<step>/`. Use it as a context manager, or close it."""

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2):
        """Opens or creates `folder`, and removes incomplete checkpoints of killed processes.

        Args:
          folder: of the checkpoints.
          keep: number of newest checkpoints to keep; keep two, in case one is damaged.

        Raises:
          UserError: the folder can't be created or written.
        """
        self._folder = absolute(as_path(folder))  # Orbax rejects a relative path
        self._keep = keep
        self._is_open = False
        with self._reporting_failure():
            self._folder.mkdir(parents=True, exist_ok=True)
            if any(self._folder.glob("*")):
                _ = self._orbax

    @functools.cached_property
    def _orbax(self) -> Any:
        import orbax.checkpoint as ocp

        self._is_open = True
        # Members of a population save at the same steps. Over several processes, each run needs its
        # own barriers, with a key that is the same wherever the processes mount the folder.
        run_key = f"{zlib.crc32(self._folder.parent.name.encode()):08x}"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=self._keep,
            cleanup_tmp_directories=True,
            save_root_metadata=False,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=run_key
            ),
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def steps(self) -> list[int]:
        """Returns the steps with a complete checkpoint, ascending."""
        return sorted(self._orbax.all_steps()) if self._is_open else []

    def save(self, step: int, state: PyTree, progress: Progress) -> None:
        """Starts writing a checkpoint, once the previous one is on disk.

        The state is copied first, so its buffers may be donated to the next training step.

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

        A damaged one is reported in one line and renamed to `<step>.damaged`. If the system denies
        access to a checkpoint, it may be undamaged and is not renamed.

        Args:
          like: a state of the same structure, with the shapes, dtypes and shardings to restore to.

        Raises:
          UserError: the system can't read a checkpoint, or all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self._restore(step, like)
            except Exception as error:  # Orbax raises a dozen types for damaged files
                if (why := _failure(error)) not in (None, *_DAMAGE):
                    raise UserError(
                        f"Can't read the checkpoint {self._folder / str(step)}: {why}. It was left "
                        "as it is; the same command resumes from it once it can be read."
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
                f"{', '.join(map(str, steps))}); they were renamed to <step>.damaged. Run the "
                "same command again to start from step 0."
            )
        return None

    def wait(self) -> None:
        """Waits until every checkpoint is on disk; raises UserError if one can't be written."""
        if self._is_open:
            with self._reporting_failure():
                self._orbax.wait_until_finished()

    def close(self) -> None:
        """Waits for pending writes, then frees Orbax's resources."""
        if self._is_open:
            with self._reporting_failure():
                self._orbax.close()

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        # After an error on one of several processes, don't wait for others that may be gone.
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
        # Orbax commits every array to its device. Uncommit those that weren't committed before,
        # such as the step count of a state whose prompt is sharded over a mesh.
        state = jax.tree.map(
            lambda new, old: new if old.committed else jnp.asarray(np.asarray(new)),
            items.state,
            like,
        )
        return Restored(step, state, items.progress["progress"])

    def _put_aside(self, step: int) -> None:
        damaged = self._folder / f"{step}.damaged"
        if jax.process_index() == 0:
            with self._reporting_failure():
                remove_folder(damaged)
                (self._folder / str(step)).rename(damaged)
        if jax.process_count() > 1:  # the others wait for the renaming
            multihost_utils.sync_global_devices(f"{step}.damaged")
        with self._reporting_failure():
            self._orbax.reload()

    @contextlib.contextmanager
    def _reporting_failure(self) -> Iterator[None]:
        """Reports a failure of the file system in one line."""
        try:
            yield
        except Exception as error:
            if (why := _failure(error)) is None:
                raise
            raise UserError(
                f"Can't write checkpoints to {self._folder}: {why}. Free some space or set "
                "MODEL_DIR to a folder you can write to; the same command resumes from the last "
                "checkpoint."
            ) from error


class _PatientLoop(asyncio.SelectorEventLoop):
    """An event loop that waits for its tasks before it closes; only the first error is raised."""

    def close(self) -> None:
        if not self.is_closed():
            self.set_exception_handler(lambda loop, context: None)
            while tasks := asyncio.all_tasks(self):
                self.run_until_complete(asyncio.wait(tasks))
        super().close()


@contextlib.contextmanager
def _patient_event_loops() -> Iterator[None]:
    """Makes new event loops wait for their tasks before they close, while entered.

    Orbax reads all arrays of a checkpoint concurrently, and closes its event loop at the first
    error. TensorStore's threads would then report the other reads to a closed loop, each with a
    traceback.
    """
    make = asyncio.new_event_loop
    asyncio.new_event_loop = _PatientLoop
    try:
        yield
    finally:
        asyncio.new_event_loop = make


# Orbax logs each failure several times, with tracebacks, before it raises it; we report one line.
# It logs through absl, whose logger must be created by absl to record a message's source file.
absl.logging.get_absl_logger().addFilter(
    lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname
)


_DAMAGE = tuple(map(os.strerror, (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)))
"""Failures that are damage too: a missing file, or a file of another kind."""

# Statuses of TensorStore's requests to a bucket.
_DENIED = r"\b(?:PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED): [^\[]*"


def _failure(error: BaseException | None) -> str | None:
    """Returns the system's or a bucket's failure that caused an error of Orbax, else None.

    TensorStore puts it in the text of a ValueError, which Orbax may wrap in another error.
    """
    while error is not None:
        if why := failure(error):
            return why
        if isinstance(error, OSError):
            return None if error.errno is None else os.strerror(error.errno)
        if found := re.search(r"os_error_code='(\d+)'", str(error)):
            return os.strerror(int(found[1]))
        if found := re.search(_DENIED, str(error)):
            return " ".join(found[0].split())
        error = error.__cause__
    return None


def _checksum(state: PyTree, progress: Progress) -> int:
    checksum = zlib.crc32(json.dumps(progress, sort_keys=True).encode())
    for leaf in jax.tree.leaves(state):
        checksum = zlib.crc32(np.asarray(leaf).tobytes(), checksum)
    return checksum


def _first_line(error: BaseException) -> str:
    """Returns the first line of the root cause, without context from Orbax and TensorStore."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = str(error).strip().partition("\n")[0] or type(error).__name__
    # TensorStore's text is: context, then the cause, then the store's options.
    line, options, _ = first.partition(" [tensorstore_spec")
    return (line.rpartition(": ")[2] if options else line).rstrip(".")
