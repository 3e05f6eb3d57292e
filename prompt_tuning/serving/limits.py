"""Limits of requests, and the middleware that limits the size of their bodies."""

import asyncio
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prompt_tuning.errors import at_least


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a request.

    Attributes:
      body_bytes: maximum size of the body; status 413 if exceeded.
      examples: maximum number of examples; status 422.
      labels: maximum number of labels per example; status 422.
      body_seconds: maximum time to receive the body; status 408.

    Raises:
      UserError: a limit is below 1.
    """

    body_bytes: int = 1_000_000
    examples: int = 256
    labels: int = 64
    body_seconds: float = 30.0

    def __post_init__(self) -> None:
        at_least(1, vars(self))


class LimitBody:
    """ASGI middleware that reads the complete body, up to the limit, before passing a request on.

    The declared length isn't trusted, and a chunked body has none.
    """

    def __init__(self, app: ASGIApp, limits: Limits):
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, or responds with 413 or 408."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limits = self._limits
        messages: list[Message] = []
        # Reject a body by its declared length without receiving it.
        declared = dict(scope["headers"]).get(b"content-length", b"")
        size = int(declared) if declared.isdigit() and int(declared) > limits.body_bytes else 0
        status, error = 413, f"The body is larger than {limits.body_bytes} bytes."
        try:
            async with asyncio.timeout(limits.body_seconds):
                while size <= limits.body_bytes:
                    messages.append(await receive())
                    size += len(messages[-1].get("body", b""))
                    if not messages[-1].get("more_body", False):
                        break
        except TimeoutError:
            size = limits.body_bytes + 1
            status, error = 408, f"The body took longer than {limits.body_seconds:g} seconds."
        if size > limits.body_bytes:
            # The rest of the body isn't read, so the connection can't serve another request.
            headers = {"connection": "close"}
            response = JSONResponse({"error": error}, status_code=status, headers=headers)
            return await response(scope, receive, send)

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)
