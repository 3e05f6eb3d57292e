"""Reads text files: rows, corpora, designs and predictions.

    for line in read_lines(as_path("reviews.csv.gz")): ...

Text is UTF-8, with or without a byte-order mark. Lines may end in a line feed, a carriage return or
both, and are yielded with a line feed. Files are decompressed according to their suffix (.gz, .bz2,
.xz, .zst) and may be in a bucket (`gs://...`).
"""

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prompt_tuning.buckets import check_reachable
from prompt_tuning.errors import UserError
from prompt_tuning.files import FilePath


def uncompressed_name(path: FilePath) -> str:
    """Returns a file's name without the suffix of its compression."""
    return path.stem if path.suffix.lower() in _DECOMPRESSORS else path.name


def read_lines(path: FilePath) -> Iterator[str]:
    """Yields the lines of a text file.

    Raises:
      UserError: the file is missing, can't be read, is damaged or is not UTF-8.
    """
    with open_file(path) as file:
        yield from decoded_lines(file, str(path))


def decoded_lines(stream: Any, name: str) -> Iterator[str]:
    """Yields the lines of a binary stream, such as `sys.stdin.buffer`, as they arrive.

    Raises:
      UserError: it isn't UTF-8; the message calls it `name`.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig")
    try:
        yield from text
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text ({error}); save it as UTF-8.") from error
    finally:
        with contextlib.suppress(ValueError):  # already closed
            text.detach()


@contextlib.contextmanager
def open_file(path: FilePath) -> Iterator[Any]:
    """Opens a file for reading its decompressed bytes.

    Raises:
      UserError: the file is missing, can't be read or is damaged; also raised inside the block.
    """
    check_reachable(path)
    try:
        with path.open("rb") as opened:
            file: Any = opened
            if not isinstance(path, Path):
                file = io.BufferedReader(file)
            decompress = _DECOMPRESSORS.get(path.suffix.lower())
            yield decompress(file) if decompress else file
    except UserError:
        raise
    except _DAMAGED as error:
        raise UserError(f"{path} is damaged ({error}); download it again.") from error
    except Exception as error:
        if isinstance(path, Path) and not isinstance(error, OSError):
            raise
        raise _unreadable(path, error) from error  # a bucket's client has its own exceptions


def _zstandard(file: Any) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(file, "zstd")


_DECOMPRESSORS: Mapping[str, Callable[[Any], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".zst": _zstandard,
}
_DAMAGED = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)


def _unreadable(path: FilePath, error: Exception) -> UserError:
    """Returns an error about the first missing folder, or else the cause."""
    if isinstance(path, Path):
        places = (*reversed(path.parents), path)
        missing = next((place for place in places if not place.exists()), None)
    else:
        missing = path if isinstance(error, FileNotFoundError) else None
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    if missing is None and isinstance(error, OSError) and error.errno is None:  # of a decompressor
        return UserError(f"{path} is damaged ({reason}); download it again.")
    reason = f"{missing} is missing; check the path" if missing else reason
    return UserError(f"Cannot read {path}: {reason}.")
