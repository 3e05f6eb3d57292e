"""Google Cloud Storage: paths `gs://BUCKET/...`, which gcsfs opens for etils' `epath` and Orbax.

A bucket has objects, not files: each is written whole, atomically; none can grow or be renamed.
"""

import contextlib
import functools
import os
import re
import socket
import time
import urllib.request
from typing import Any

from prompt_tuning.errors import UserError

# etils and gcsfs read these once. Not TensorFlow's client, whose errors aren't OSErrors, and which
# is slow to import; and no requests for each bucket's kind, which only its owner may make.
os.environ.setdefault("EPATH_USE_TF", "0")
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "0")

_HOST = "storage.googleapis.com"
_EMULATORS = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")
_CLIENTS = ("gcsfs", "google", "aiohttp", "requests")
# `pathlib` collapses the slashes of "gs://...".
_SCHEME = re.compile(r"(gs|s3|az|[a-zA-Z]\w+(?=://)):/{1,2}(?=[^/])")


def located(path: str | os.PathLike[str]) -> str:
    """Returns a path with `~` expanded, local or as `gs://BUCKET/...`.

    Raises:
      UserError: its scheme is another, such as `s3://`.
    """
    text = os.path.expanduser(os.fspath(path))
    found = _SCHEME.match(text)
    if found is None:
        return text
    if found[1] != "gs":
        raise UserError(
            f"{path}: paths of {found[1]}:// can't be read or written; use gs://BUCKET/..., or "
            "mount the storage and give the folder's path (docs/pods.md)."
        )
    return f"gs://{text[found.end() :]}"


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(path).startswith("gs://")


@functools.cache
def configure() -> None:
    """Configures gcsfs, for `epath` and Orbax too; call it before any use of a bucket."""
    # The import takes a twentieth of a second.
    import fsspec.config

    # Other processes, and TensorStore, write to the same folders.
    settings = {"use_listings_cache": False, "session_kwargs": {"trust_env": True}}  # for proxies
    fsspec.config.conf.setdefault("gcs", {}).update(settings)


def storage() -> Any:
    """Returns gcsfs's file system, the one that `epath` uses; the first call signs in."""
    import fsspec

    configure()
    return fsspec.filesystem("gcs", finalize_on_close=True)


def create(path: os.PathLike[str], data: bytes) -> bool:
    """Writes an object unless it exists; of several processes, one succeeds."""
    try:
        storage().pipe_file(os.fspath(path), data, mode="create")
    except FileExistsError:
        return False
    return True


def touch(path: os.PathLike[str]) -> None:
    """Sets an object's time to now, if it exists."""
    storage().setxattrs(os.fspath(path))


def remove_if_older(path: os.PathLike[str], seconds: float | int) -> None:
    """Removes an object, unless it is newer, or changes in the meantime."""
    client = storage()
    # Refused (412, a FileExistsError) if another process has touched or replaced the object.
    with contextlib.suppress(FileNotFoundError, FileExistsError):
        found = client.info(os.fspath(path))
        if time.time() - found["mtime"].timestamp() > seconds:
            bucket, key, _ = client.split_path(os.fspath(path))
            client.call(
                "DELETE",
                "b/{}/o/{}",
                bucket,
                key,
                ifGenerationMatch=found["generation"],
                ifMetagenerationMatch=found["metageneration"],
            )


def failure(error: BaseException) -> str | None:
    """Returns what the client of a bucket reports, such as a lack of permission; else None."""
    is_from_client = type(error).__module__.partition(".")[0] in _CLIENTS
    if is_from_client or (type(error) is OSError and error.errno is None):  # such as "Forbidden"
        return " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return None


def check_reachable(path: str | os.PathLike[str]) -> None:
    """Checks that the host name of a bucket's path resolves; other paths always pass.

    Without a network, the client of Google's storage takes seconds to import, retries, and logs.
    Behind a proxy or with an emulator, nothing is checked: names may not resolve locally.

    Raises:
      UserError: the host's name can't be resolved.
    """
    elsewhere = urllib.request.getproxies() or any(name in os.environ for name in _EMULATORS)
    if not in_bucket(path) or elsewhere:
        return
    try:
        socket.getaddrinfo(_HOST, 443)
    except OSError as error:
        raise UserError(
            f"Can't reach {path}: there is no network ({_HOST} can't be resolved). Download it "
            "where there is one, and give the path of the copy."
        ) from error
