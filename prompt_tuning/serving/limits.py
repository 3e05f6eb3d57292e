"""What a client may ask for at once, and the middleware that holds it to the size of a body."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prompt_tuning.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is refused beyond.

    Attributes:
      body_bytes: the size of a request's body; more is answered with 413.
      examples: the examples of a request; more are answered with 422.
      labels: the labels of an example; more are answered with 422.
      body_seconds: how long a body may take to arrive; a slower one is answered with 408.

    Raises:
      UserError: a limit is below 1.
    """

    body_bytes: int = 1_000_000
    examples: int = 256
    labels: int = 64
    body_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value >= 1:
                raise UserError(f"{name} is {value}; it must be at least 1.")


class LimitBody:
    """ASGI middleware that reads a body whole, up to the limit, before the request goes on.

    The declared length isn't trusted: a body may come in pieces without any.
    """

    def __init__(self, app: ASGIApp, limits: Limits):
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or answers it with 413 or 408."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limits = self._limits
        refusal: tuple[int, str] | None = None
        messages: list[Message] = []
        if _declared_length(scope) > limits.body_bytes:
            refusal = 413, f"The body is larger than {limits.body_bytes} bytes."
        else:
            try:
                async with asyncio.timeout(limits.body_seconds):
                    size = 0
                    while not messages or messages[-1].get("more_body", False):
                        messages.append(await receive())
                        size += len(messages[-1].get("body", b""))
                        if size > limits.body_bytes:
                            refusal = 413, f"The body is larger than {limits.body_bytes} bytes."
                            break
            except TimeoutError:
                refusal = 408, f"The body took longer than {limits.body_seconds:g} seconds."
        if refusal:
            status, text = refusal
            # The rest of the body is not read, so the connection can't serve another request.
            headers = {"connection": "close"}
            response = JSONResponse({"error": text}, status_code=status, headers=headers)
            return await response(scope, receive, send)
        await self._app(scope, _replay(iter(messages), receive), send)


def _replay(messages: Iterator[Message], receive: Receive) -> Receive:
    async def next_message() -> Message:
        for message in messages:
            return message
        return await receive()

    return next_message


def _declared_length(scope: Scope) -> int:
    value = dict(scope["headers"]).get(b"content-length", b"0")
    return int(value) if value.isdigit() else 0
