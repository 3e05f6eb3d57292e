"""The folder of one run: its settings and all its outputs.

    settings.json        everything that the run's result depends on
    config.gin           the operative configuration, as text
    task.json            the task: labels, templates, lengths, paths of the files
    versions.json        packages, Python, devices and git commit
    metrics.jsonl        losses and scores, one row per line (`logging.py`)
    tensorboard/         the same for TensorBoard
    profile/             the trace of `--profile`
    predictions/         of each evaluation, one example per line
    checkpoints/         to resume from (`prompt_tuning.checkpoints.state`)
    prompt_best.*        the prompt of the best evaluation, or
    adapter_best.*       the parameters of another method
    weights.safetensors  after pre-training: the model; its vocabulary is spiece.model
    summary.json         task, scores, sizes and speed, once the run has ended

The folder of a population (`recipes/population.py`) has settings.json, config.gin, versions.json,
prompt_best.*, summary.json and

    members/             a run folder for each member

The same command on the same folder resumes the run. A run with other settings is rejected, as is a
second process while the first is training, except in a bucket. If a run has several processes
(`jax.distributed`), only the first writes, except for checkpoints, to which all may contribute.
"""

import contextlib
import dataclasses
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from prompt_tuning.errors import UserError, listed
from prompt_tuning.files import as_path, atomic_write, remove_folder, writing
from prompt_tuning.json_text import parse_json, shown

_PACKAGES = (
    "prompt-tuning",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "seqio",
    "sentencepiece",
    "tensorflow",
)
# The profiler creates the last one.
_FOLDERS = ("checkpoints", "predictions", "tensorboard", "profile")
_FILES = (
    "settings.json",
    "config.gin",
    "task.json",
    "versions.json",
    "metrics.jsonl",
    "summary.json",
    "prompt_best.npy",
    "prompt_best.safetensors",
    "adapter_best.safetensors",
    "weights.safetensors",
    "spiece.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "wandb_id",
)
MEMBERS = "members"
"""The subfolder with the members' run folders, in a population's folder."""

FIX = "Free some space, or set MODEL_DIR to a folder you can write to."
"""Hint for the user if a run's folder can't be written."""

_LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_locked: dict[tuple[int, int], int] = {}
"""Locks of this process: (device, inode) of the lock file -> its file descriptor."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences between the settings of a folder's run and the current ones.

    Attributes:
      refused: differences that make it another run.
      notes: lines to print about differences with which the run can continue.
    """

    refused: Sequence[str] = ()
    notes: Sequence[str] = ()


def compare_all(found: Mapping[str, Any], given: Mapping[str, Any]) -> Comparison:
    """Compares settings by name and rejects any difference."""
    missing = "not set"
    return Comparison(
        refused=[
            f"{name} is {found.get(name, missing)} there, {given.get(name, missing)} now"
            for name in sorted(found.keys() | given.keys())
            if found.get(name, missing) != given.get(name, missing)
        ]
    )


class RunFolder:
    """The paths in a run's folder, whose files are written atomically.

    Attributes:
      notes: lines to print about settings that have changed since the run began.
      is_written_here: whether this is the run's only or first process; the others write nothing.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = as_path(path)
        self.notes: Sequence[str] = ()
        self.is_written_here = jax.process_index() == 0
        self.metrics = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.profile = self.path / "profile"
        self.predictions = self.path / "predictions"
        self.checkpoints = self.path / "checkpoints"
        self.summary = self.path / "summary.json"

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        settings: Mapping[str, Any],
        config_text: str,
        compare: Callable[[Mapping[str, Any], Mapping[str, Any]], Comparison] = compare_all,
        train_steps: int | None = None,
        overwrite: bool = False,
        population: bool = False,
    ) -> "RunFolder":
        """Creates the folder of a new run, or opens that of a run with the same settings.

        The folder stays locked until this process exits.

        Args:
          path: the folder; its parents are created too.
          settings: JSON values by name; everything that the result depends on.
          config_text: the operative configuration, for `config.gin`.
          compare: (settings of the run in the folder, current ones) -> the differences.
          train_steps: the run's total number of steps.
          overwrite: remove the files of another run and start over. Other files are kept.
          population: whether the folder is a population's, with the members' folders inside.

        Raises:
          UserError: the folder contains a run with other settings or more steps, another process
            is training in it, or it can't be written.
        """
        folder = cls(path)
        if not folder.is_written_here:
            return folder
        # Through JSON and back, so that tuples compare equal to the lists read from the file.
        given = json.loads(json.dumps(settings, default=str))
        with writing(folder.path, fix=FIX):
            folder.path.mkdir(parents=True, exist_ok=True)
            if isinstance(folder.path, Path):  # buckets have no locks
                _lock(folder.path)
            if overwrite:
                folder._clear()
            folder._check_owner(given, compare)
            folder._check_steps(train_steps)
            for name in (MEMBERS,) if population else _FOLDERS[:-1]:
                (folder.path / name).mkdir(parents=True, exist_ok=True)
        folder.write_json("settings.json", given)
        folder.write_text("config.gin", config_text)
        folder._record_versions()
        return folder

    def write_text(self, name: str, text: str) -> None:
        """Writes a file of this folder atomically, even if the machine fails."""
        if not self.is_written_here:
            return
        with atomic_write(self.path / name, fix=FIX) as file:
            file.write(text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Writes a value as indented JSON."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def write_predictions(self, step: int, predictions: Iterable[Mapping[str, Any]]) -> None:
        """Writes the predictions of an evaluation, one example per line."""
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in predictions]
        self.write_text(f"predictions/step_{step:08}.jsonl", "".join(lines))

    def _record_versions(self) -> None:
        """Records the versions at the run's start, and any others that it resumed with."""
        now = versions()
        try:
            recorded = parse_json((self.path / "versions.json").read_bytes())
            later = [*recorded.pop("resumed_with", [])]
        # No run depends on the record, so a damaged one is replaced.
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            recorded, later = dict(now), []
        if now not in (recorded, *later):
            later.append(now)
        self.write_json("versions.json", {**recorded, "resumed_with": later})

    def _has_begun(self) -> bool:
        """Whether a run got far enough to write metrics or checkpoints here."""
        measured = self.metrics.exists() and len(self.metrics.read_bytes()) > 0
        inside = (self.checkpoints, self.path / MEMBERS)
        return measured or any(any(folder.glob("*")) for folder in inside)

    def _check_owner(self, settings: dict[str, Any], compare: Any) -> None:
        if not self._has_begun():
            return
        try:
            found = parse_json((self.path / "settings.json").read_bytes())
            if not isinstance(found, dict):
                raise ValueError(f"it contains {shown(found)}, not an object")
        except FileNotFoundError:
            raise UserError(
                f"{self.path} contains a run without its settings.json; give another MODEL_DIR, "
                "or --overwrite to start over here."
            ) from None
        except ValueError as error:
            raise UserError(
                f"{self.path / 'settings.json'} is not JSON of settings: {error}; give another "
                "MODEL_DIR, or --overwrite to start over here."
            ) from error
        compared = compare(found, settings)
        self.notes = compared.notes
        if compared.refused:
            raise UserError(
                f"{self.path} belongs to a run with another configuration: "
                f"{listed(compared.refused, '; ')}. Give another MODEL_DIR, or --overwrite to "
                "remove that run and start over."
            )

    def _check_steps(self, train_steps: int | None) -> None:
        names = [entry.name for entry in self.checkpoints.glob("*") if entry.name.isdigit()]
        made = max(map(int, names), default=0)
        if train_steps is not None and train_steps < made:
            raise UserError(
                f"{self.path} contains a run of {made:,} steps, but TRAIN_STEPS is "
                f"{train_steps:,}; give {made} or more, another MODEL_DIR, or --overwrite to "
                "start over."
            )

    def _clear(self) -> None:
        for name in (*_FOLDERS, MEMBERS):
            remove_folder(self.path / name)
        for name in _FILES:
            (self.path / name).unlink(missing_ok=True)


def _lock(folder: Path) -> None:
    """Locks a folder for this process. The system unlocks it when the process dies.

    Raises:
      UserError: another process has locked it.
    """
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    status = os.fstat(descriptor)
    identity = status.st_dev, status.st_ino
    if identity in _locked:
        os.close(descriptor)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(
            f"Another process is training in {folder}; wait for it or stop it, or give another "
            "MODEL_DIR."
        ) from None
    except OSError as error:
        os.close(descriptor)
        # Some network file systems have no locks; train without one there.
        if error.errno not in _NO_LOCKS:
            raise
        return
    _locked[identity] = descriptor


def versions() -> dict[str, Any]:
    """Returns the versions and devices that results depend on, in addition to the settings."""
    packages = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    return {
        "packages": packages,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Returns the commit of this package's checkout, with "-dirty" if files have changed since."""
    package = Path(__file__).parents[1]
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
