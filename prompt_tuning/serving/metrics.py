"""What Prometheus is told at GET /metrics.

Labels take few values: routes, statuses and loaded prompts, never what a client made up.
"""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """The server's counters, in a registry of their own.

    Args:
      queued: gives the number of examples that wait.
      compiled: gives the number of compiled shapes.
      prompts: gives the number of loaded prompts.
    """

    def __init__(
        self,
        *,
        queued: Callable[[], float],
        compiled: Callable[[], float],
        prompts: Callable[[], float],
    ):
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, value: Callable[[], float]) -> None:
            Gauge(f"prompt_tuning_{name}", text, registry=self.registry).set_function(value)

        gauge("queued_examples", "Examples that wait for a batch.", queued)
        gauge("compiled_shapes", "Shapes of batches compiled since the start.", compiled)
        gauge("prompts", "Prompts loaded.", prompts)
        self.requests = Counter(
            "prompt_tuning_requests",
            "Requests answered.",
            ["route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "prompt_tuning_request_seconds",
            "Seconds from a request to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.examples = Counter(
            "prompt_tuning_examples",
            "Examples answered.",
            ["prompt"],
            registry=self.registry,
        )
        self.batch_examples = Histogram(
            "prompt_tuning_batch_examples",
            "Examples in a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "prompt_tuning_batch_seconds",
            "Seconds that the model took for a batch.",
            buckets=_SECONDS,
            registry=self.registry,
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
            # The router leaves the route that it found; what is nowhere is counted together.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route=route, status=str(status)).inc()
            self._metrics.request_seconds.labels(route=route).observe(time.perf_counter() - started)
