"""Paths of files, local or in a bucket; writes files atomically, and reports failures in one line.

A killed process or a failing machine leaves no partial file: a file gets its name once all of it is
on disk or in the bucket; until then, the name keeps the old contents.
"""

import contextlib
import errno
import io
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from etils import epath

from prompt_tuning import buckets
from prompt_tuning.errors import UserError

FilePath = Path | epath.Path
"""A local path, or one in a bucket, whose methods are `pathlib`'s, and fewer."""

CACHE_FIX = "Free some space, or choose another cache folder with PROMPT_TUNING_CACHE."
"""What to do when the cache can't be written."""


def as_path(path: str | os.PathLike[str]) -> FilePath:
    """Returns the path of a file or folder, `~` expanded.

    Args:
      path: local, or in a bucket: `gs://BUCKET/...`.

    Raises:
      UserError: its scheme is another, such as `s3://`.
    """
    text = buckets.located(path)
    if not buckets.in_bucket(text):
        return Path(text)
    buckets.configure()
    return epath.Path(text)


@contextlib.contextmanager
def atomic_write(path: FilePath, *, fix: str) -> Iterator[IO[bytes]]:
    """Opens a temporary file that gets its name if the block ends without an error.

    Args:
      path: the file, in an existing folder or in a bucket.
      fix: a sentence on how to fix a failure to write.

    Raises:
      UserError: the folder is missing or can't be written, or the disk is full.
    """
    if not isinstance(path, Path):
        with writing(path, fix=fix), tempfile.NamedTemporaryFile() as file:
            yield file.file
            upload(file, path)
        return
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


def upload(file: IO[bytes], path: FilePath) -> None:
    """Writes all of a named local file to an object of a bucket."""
    file.flush()
    buckets.storage().put_file(file.name, str(path))


class GrowingFile:
    """A file to which a process adds, such as a log.

    A bucket's object can't grow: there, the file is a temporary one on this machine, and `sync` and
    `close` write all of it to the bucket.

    Args:
      path: the file; its contents are kept.
      fix: as in `atomic_write`, whose errors all methods raise.
    """

    def __init__(self, path: FilePath, *, fix: str):
        self._path, self._fix = path, fix
        with writing(path, fix=fix):
            if isinstance(path, Path):
                self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
            else:
                self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - likewise
                if path.exists():
                    self._file.write(path.read_bytes())

    def truncate(self, size: int) -> None:
        """Removes what follows the first `size` bytes."""
        with writing(self._path, fix=self._fix):
            # Never lengthen the file: `truncate` would pad one that has lost its end with zeros.
            self._file.truncate(min(size, self._file.seek(0, os.SEEK_END)))
            self._file.seek(0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        """Adds bytes; in a local file, they survive a crash of this process."""
        with writing(self._path, fix=self._fix):
            self._file.write(data)
            self._file.flush()

    def sync(self) -> int:
        """Writes everything to disk, or to the bucket; returns the size in bytes."""
        with writing(self._path, fix=self._fix):
            if isinstance(self._path, Path):
                os.fsync(self._file.fileno())
            else:
                upload(self._file, self._path)
        return self._file.tell()

    def fileno(self) -> int:
        """Returns the descriptor of the local file, to which a subprocess can write."""
        return self._file.fileno()

    def close(self) -> None:
        """Closes the file."""
        if not isinstance(self._path, Path) and not self._file.closed:
            self.sync()
        self._file.close()


def absolute(path: FilePath) -> FilePath:
    """Returns the absolute path."""
    return path.absolute() if isinstance(path, Path) else path


def files_in(folder: FilePath) -> list[FilePath]:
    """Returns all files in a folder and its subfolders, sorted."""
    if isinstance(folder, Path):
        return sorted(path for path in folder.rglob("*") if path.is_file())
    return [as_path(f"gs://{path}") for path in sorted(buckets.storage().find(str(folder)))]


def remove_folder(folder: FilePath) -> None:
    """Removes a folder with everything in it, if it exists."""
    if folder.exists():
        shutil.rmtree(folder) if isinstance(folder, Path) else folder.rmtree()


def new_folder(folder: FilePath, *, fix: str = "Give another folder.") -> FilePath:
    """Creates a folder, unless an empty one exists, and returns its path.

    Raises:
      UserError: it isn't empty, or can't be created.
    """
    with writing(folder, fix=fix):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("*")):
            raise UserError(
                f"{folder} isn't empty, and nothing is written over; give a new folder."
            )
    return folder


@contextlib.contextmanager
def writing(path: FilePath, *, fix: str) -> Iterator[None]:
    """Turns an error of the system into a `UserError` that ends with the sentence `fix`."""
    try:
        yield
    except Exception as error:
        why = buckets.failure(error)
        if why is None and isinstance(error, OSError):
            no_bucket = buckets.in_bucket(path) and isinstance(error, FileNotFoundError)
            why = "there is no such bucket" if no_bucket else error.strerror or str(error)
        if why is None:
            raise
        raise UserError(f"Can't write {path}: {why}. {fix}") from error


def check_kind(path: FilePath) -> None:
    """Raises UserError if a path is neither a file nor a folder, such as a pipe or a device."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(
            f"{path} is neither a file nor a folder but a pipe, a socket or a device; copy what "
            "comes from it to a file."
        )


def default_cache_dir() -> Path:
    """Returns $PROMPT_TUNING_CACHE, or `prompt_tuning` in the user's cache folder."""
    if chosen := os.environ.get("PROMPT_TUNING_CACHE"):
        if isinstance(found := as_path(chosen), Path):
            return found
        raise UserError(f"PROMPT_TUNING_CACHE is {chosen}; the cache must be a local folder.")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prompt_tuning"


@contextlib.contextmanager
def cache_file(path: Path) -> Iterator[IO[bytes]]:
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
    found, fix = as_path(path), "Give another path."
    if not isinstance(found, Path):
        with writing(found, fix=fix):
            if found.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with atomic_write(found, fix=fix) as file:
            text = io.TextIOWrapper(file, encoding="utf-8")
            yield text
            text.detach()
        return
    is_stream = found.exists() and not found.is_file()
    with (
        writing(found, fix=fix),
        open(found, "w" if is_stream else "x", encoding="utf-8") as file,
    ):
        yield file
