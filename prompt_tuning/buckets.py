"""Checks that a storage bucket is reachable, before a client waits and retries."""

import os
import socket
import urllib.request

from prompt_tuning.errors import UserError

_HOSTS = {"gs": "storage.googleapis.com"}
_EMULATORS = ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL")


def check_reachable(path: str | os.PathLike[str]) -> None:
    """Checks that the host name of a bucket's path resolves; other paths always pass.

    Without a network, the client of Google's storage takes seconds to import, retries, and logs.
    Behind a proxy or with an emulator, nothing is checked: names may not resolve locally.

    Raises:
      UserError: the host's name can't be resolved.
    """
    scheme, separator, _ = str(path).partition("://")
    host = _HOSTS.get(scheme)
    elsewhere = urllib.request.getproxies() or any(name in os.environ for name in _EMULATORS)
    if not separator or host is None or elsewhere:
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise UserError(
            f"Can't reach {path}: there is no network ({host} can't be resolved). Download it "
            "where there is one, and give the path of the copy."
        ) from error
