"""Where a run's metrics go: `metrics.jsonl`, TensorBoard, Weights & Biases.

`metrics.jsonl` is the record: a run that was killed and resumed has the rows of one that was
not, once each. TensorBoard's event files are written without TensorFlow, whose import costs
seconds. What a run shows on the screen is in `screen.py`.
"""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from prompt_tuning.errors import UserError
from prompt_tuning.files import writing
from prompt_tuning.json_text import parse_json, shown
from prompt_tuning.training.record_file import record
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
"""Fields of a row that differ between two runs of the same command."""

Row = Mapping[str, float | int]
"""Numbers by name, with "step" among them."""


class Writer(Protocol):
    """Something that takes rows."""

    def write(self, row: Row) -> None:
        """Takes one row."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class MetricsFile:
    """`metrics.jsonl`, written a row at a time; resuming cuts it back to the checkpoint's end."""

    def __init__(self, path: Path, offset: int = 0):
        """Opens the file, dropping what lies beyond `offset` bytes."""
        self._path = path
        with writing(path, fix=FIX):
            self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
            # Cutting never lengthens: a file that has lost its end would be filled with zeros.
            self._file.truncate(min(offset, path.stat().st_size))
            self._file.seek(0, os.SEEK_END)

    def write(self, row: Row) -> None:
        """Appends a row; it outlives this process at once."""
        with writing(self._path, fix=FIX):
            self._file.write(json.dumps(row).encode() + b"\n")
            self._file.flush()

    def sync(self) -> int:
        """Makes the rows outlive the machine too; returns where the file ends, in bytes."""
        with writing(self._path, fix=FIX):
            os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, float | int]]:
    """Reads a `metrics.jsonl`; a last line that a killed run left unfinished is passed over.

    Raises:
      UserError: there is no such file, or another line isn't a JSON object of numbers with a step.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"Can't read the metrics {path}: {error.strerror}.") from error
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}.") from error
        if not (isinstance(row, dict) and "step" in row and all(map(_is_number, row.values()))):
            raise UserError(
                f"{path}, line {number} holds {shown(row)}; expected numbers by name, the step "
                "among them."
            )
        rows.append(row)
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


class TensorBoardFile:
    """One event file; TensorBoard takes the newest where a resumed run repeats steps."""

    def __init__(self, folder: Path, step: int):
        """Starts a file that continues after `step`."""
        self._path = folder / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        with writing(self._path, fix=FIX):
            self._file = open(self._path, "wb")  # noqa: SIM115 - closed by close()
        self._write(Event(file_version="brain.Event:2"))
        # Tells TensorBoard to drop the later steps of the files before this one.
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, row: Row) -> None:
        """Writes each number of a row as a scalar."""
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "step"
        ]
        self._write(Event(step=int(row["step"]), summary=Summary(value=values)))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        with writing(self._path, fix=FIX):
            self._file.write(record(event.SerializeToString()))
            self._file.flush()


class WandbRun:
    """Weights & Biases, if asked for; a resumed run keeps its page there."""

    def __init__(self, project: str, folder: RunFolder):
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError(
                f"Logging to the W&B project '{project}' needs the package wandb, which is not "
                "installed; run `pip install wandb`, or leave the option out."
            ) from None
        identity = folder.path / "wandb_id"
        if not identity.exists():
            folder.write_text(identity.name, wandb.util.generate_id())
        self._run = wandb.init(
            project=project,
            id=identity.read_text(),
            resume="allow",
            name=folder.path.name,
            dir=str(folder.path),
            config=json.loads((folder.path / "settings.json").read_text()),
        )

    def write(self, row: Row) -> None:
        """Logs a row at its step."""
        self._run.log({name: value for name, value in row.items() if name != "step"}, row["step"])

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()
