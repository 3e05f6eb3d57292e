"""Runs the application until it is stopped.

On SIGINT or SIGTERM, no more connections are accepted, pending requests are answered, and `serve`
returns.
"""

import ipaddress
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from prompt_tuning.errors import UserError

STOP_SECONDS = 30
"""Maximum time for pending requests after the server receives a signal."""


def listen(host: str, port: int) -> socket.socket:
    """Returns a bound socket; port 0 picks a free one.

    Raises:
      UserError: the address isn't available.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port is {port}; expected 0 to 65535, where 0 picks a free port.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        raise UserError(
            f"Can't listen at {host}:{port}: {error.strerror or error}. Give another --host or "
            "--port; port 0 picks a free one."
        ) from error


def is_loopback(bound: socket.socket) -> bool:
    """Whether only this machine can reach the socket."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def url_of(bound: socket.socket) -> str:
    """Returns the socket's URL."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, bound: socket.socket, started: Callable[[], None]) -> None:
    """Serves `app` on a bound socket until a signal; calls `started` once it answers."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_SECONDS
    )
    server = _Server(config, started)
    # uvicorn handles the signals while it runs, and raises them again when it ends. Our handlers
    # keep those from ending the process, and listeners on the wakeup descriptor don't get them.
    listening = signal.set_wakeup_fd(-1)
    before = {
        number: signal.signal(number, server.handle_exit)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(listening)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]):
        super().__init__(config)
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()
