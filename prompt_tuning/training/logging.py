"""Writers of a run's metrics: `metrics.jsonl`, TensorBoard, Weights & Biases.

`metrics.jsonl` is the authoritative record: a run that was killed and resumed has the same rows as
an uninterrupted one, without duplicates. `screen.py` prints progress.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from prompt_tuning.buckets import in_bucket
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath, GrowingFile, as_path
from prompt_tuning.json_text import parse_json, shown
from prompt_tuning.training.run_folder import FIX, RunFolder
from prompt_tuning.training.startup import PARTS

WALL_TIME_FIELDS = (
    "seconds",
    "examples_per_second",
    "tokens_per_second",
    # monitoring.py
    "input_wait",
    "compiled_programs",
    "compile_seconds",
    "mfu",
    "device_memory_bytes",
    "startup/total",
    *(f"startup/{part}" for part in PARTS),
)
"""Fields of a row that vary between runs of the same command."""

Row = Mapping[str, float | int]
"""Values by name, including "step"."""


class Writer(Protocol):
    """A destination for rows of metrics."""

    def write(self, row: Row) -> None:
        """Writes one row."""
        ...

    def close(self) -> None:
        """Writes any remaining data."""
        ...


class MetricsFile:
    """`metrics.jsonl`, written row by row; resuming truncates it to the checkpoint's offset."""

    def __init__(self, path: FilePath, offset: int = 0):
        """Opens the file, and truncates it to `offset` bytes."""
        self._file = GrowingFile(path, fix=FIX)
        self._file.truncate(offset)

    def write(self, row: Row) -> None:
        """Appends a row."""
        self._file.write(json.dumps(row).encode() + b"\n")

    def sync(self) -> int:
        """Writes the rows to disk or to the bucket; returns the file's size in bytes."""
        return self._file.sync()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, float | int]]:
    """Reads a `metrics.jsonl`; skips a last line left unfinished by a killed run.

    Raises:
      UserError: the file can't be read, or another line isn't a JSON object of numbers with a step.
    """
    try:
        lines = as_path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"Can't read the metrics {path}: {error.strerror or error}.") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}.") from error
        if not (isinstance(row, dict) and "step" in row and all(map(_is_number, row.values()))):
            raise UserError(
                f"{path}, line {number} contains {shown(row)}; expected numbers by name, "
                "including the step."
            )
        rows.append(row)
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


class TensorBoardFile:
    """One event file; TensorBoard uses the newest if a resumed run repeats steps."""

    def __init__(self, folder: FilePath, step: int):
        """Creates a file that continues after `step`."""
        path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        self._first_step = step + 1
        self._file = GrowingFile(path, fix=FIX)
        self._records: Any = None
        # Import the writer in the background while the first program compiles.
        threading.Thread(target=_tensorboard, daemon=True, name="import tensorboard").start()

    def write(self, row: Row) -> None:
        """Writes each value of a row as a scalar."""
        event_pb2, record_writer = _tensorboard()
        if self._records is None:
            self._records = record_writer.RecordWriter(self._file)
            self._write(event_pb2.Event(file_version="brain.Event:2"))
            # Makes TensorBoard discard later steps in earlier files.
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(step=self._first_step, session_log=start))
        event = event_pb2.Event(step=int(row["step"]))
        for name, value in row.items():
            if name != "step":
                event.summary.value.add(tag=name, simple_value=value)
        self._write(event)

    def sync(self) -> None:
        """Writes the events to disk or to the bucket."""
        self._file.sync()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


def _tensorboard() -> tuple[Any, Any]:
    """Returns TensorBoard's `event_pb2` and `record_writer`; the first call is slow.

    Unlike its event writer, these modules don't import TensorFlow.
    """
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer import record_writer

    return event_pb2, record_writer


class WandbRun:
    """A Weights & Biases run; a resumed run keeps its W&B id."""

    def __init__(self, project: str, folder: RunFolder):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError(
                f"Logging to the W&B project '{project}' needs the package wandb, which is not "
                "installed; run `pip install wandb`, or unset the option."
            ) from None
        identity = folder.path / "wandb_id"
        if not identity.exists():
            folder.write_text(identity.name, wandb.util.generate_id())
        self._run = wandb.init(
            project=project,
            id=identity.read_text(),
            resume="allow",
            name=folder.path.name,
            dir=None if in_bucket(folder.path) else str(folder.path),
            config=json.loads((folder.path / "settings.json").read_text()),
        )

    def write(self, row: Row) -> None:
        """Logs a row at its step."""
        self._run.log({name: value for name, value in row.items() if name != "step"}, row["step"])

    def close(self) -> None:
        """Sends any remaining data."""
        self._run.finish()
