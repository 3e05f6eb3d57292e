"""Writes files atomically, and reports failures in one line.

A killed process or a failing machine leaves no partial file: a file gets its name once all of it is
on disk; until then, the name keeps the old contents.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from prompt_tuning.errors import UserError

CACHE_FIX = "Free some space, or choose another cache folder with PROMPT_TUNING_CACHE."
"""What to do when the cache can't be written."""


@contextlib.contextmanager
def atomic_write(path: Path, *, fix: str) -> Iterator[BinaryIO]:
    """Opens a temporary file that gets its name if the block ends without an error.

    Args:
      path: the file, in an existing folder.
      fix: a sentence on how to fix a failure to write.

    Raises:
      UserError: the folder is missing or can't be written, or the disk is full.
    """
    # Not `tempfile`, whose files only the owner can read: folders may be shared by users and hosts.
    # A random name, since processes of two hosts may have the same id.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with writing(path, fix=fix):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def new_folder(folder: Path, *, fix: str = "Give another folder.") -> Path:
    """Creates a folder, unless an empty one exists, and returns its path.

    Raises:
      UserError: it isn't empty, or can't be created.
    """
    with writing(folder, fix=fix):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(
                f"{folder} isn't empty, and nothing is written over; give a new folder."
            )
    return folder


@contextlib.contextmanager
def writing(path: Path, *, fix: str) -> Iterator[None]:
    """Turns an OSError into a `UserError` about `path` that ends with the sentence `fix`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"Can't write {path}: {error.strerror or error}. {fix}") from error


def check_kind(path: Path) -> None:
    """Raises UserError if a path is neither a file nor a folder, such as a pipe or a device."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(
            f"{path} is neither a file nor a folder but a pipe, a socket or a device; copy what "
            "comes from it to a file."
        )


def default_cache_dir() -> Path:
    """Returns $PROMPT_TUNING_CACHE, or `prompt_tuning` in the user's cache folder."""
    if chosen := os.environ.get("PROMPT_TUNING_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prompt_tuning"


@contextlib.contextmanager
def cache_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a cache file for an atomic write, creating its folder.

    Raises:
      UserError: the folder cannot be written or the disk is full.
    """
    with writing(path, fix=CACHE_FIX):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, fix=CACHE_FIX) as file:
        yield file


@contextlib.contextmanager
def new_file(path: str) -> Iterator[IO[str]]:
    """Opens a file for results; an existing file is never overwritten.

    Devices and pipes, such as /dev/stdout, are allowed.

    Raises:
      UserError: it exists, or can't be written.
    """
    is_stream = Path(path).exists() and not Path(path).is_file()
    with (
        writing(Path(path), fix="Give another path."),
        open(path, "w" if is_stream else "x", encoding="utf-8") as file,
    ):
        yield file
