"""The server's counters, which Prometheus reads at GET /metrics.

Labels have few values: routes, statuses and loaded prompts, never arbitrary text from clients.
"""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counters in their own registry.

    Args:
      queued: returns the number of waiting examples.
      compiled: returns the number of compiled shapes.
      prompts: returns the number of loaded prompts.
    """

    def __init__(
        self,
        *,
        queued: Callable[[], float],
        compiled: Callable[[], float],
        prompts: Callable[[], float],
    ):
        self.registry = CollectorRegistry()
        common: Any = {"namespace": "prompt_tuning", "registry": self.registry}
        for name, text, value in (
            ("queued_examples", "Examples that wait for a batch.", queued),
            ("compiled_shapes", "Shapes of batches compiled since the start.", compiled),
            ("prompts", "Prompts loaded.", prompts),
        ):
            Gauge(name, text, **common).set_function(value)
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **common)
        self.request_seconds = Histogram(
            "request_seconds",
            "Seconds from a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            **common,
        )
        self.examples = Counter("examples", "Examples answered.", ["prompt"], **common)
        self.batch_examples = Histogram(
            "batch_examples", "Examples in a batch.", buckets=_SIZES, **common
        )
        self.batch_seconds = Histogram(
            "batch_seconds", "Seconds that the model took for a batch.", buckets=_SECONDS, **common
        )

    def observe_batch(self, size: int, seconds: float) -> None:
        """Counts a batch."""
        self.batch_examples.observe(size)
        self.batch_seconds.observe(seconds)


class CountRequests:
    """ASGI middleware that counts and times requests by route and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = time.perf_counter()
        status = 500

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_status)
        finally:
            # The router stores the matched route; unknown paths are counted together.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route=route, status=str(status)).inc()
            self._metrics.request_seconds.labels(route=route).observe(time.perf_counter() - started)
