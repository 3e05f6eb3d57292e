"""The HTTP interface: `POST /predict`, `/prompts`, `/health` and `/metrics`; `/` lists them.

All responses except those of /metrics are JSON. Errors are `{"error": "one line"}`, with a 4xx
status if the client can fix them. The server itself is in `server.py`.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException

import prompt_tuning
from prompt_tuning.errors import UserError
from prompt_tuning.evaluation.predictor import Answer, Predictor, Prepared, UnknownPrompt
from prompt_tuning.serving.batching import Batcher, BatchingOptions, Closed, QueueFull
from prompt_tuning.serving.limits import LimitBody, Limits
from prompt_tuning.serving.metrics import CountRequests, Metrics
from prompt_tuning.serving.prompt_folder import Loaded, NoSuchPromptFile, PromptFolder
from prompt_tuning.serving.questions import Body, Question, example_of, first_mistake


class Reply(BaseModel):
    """The answer to an example; `scores` are log-likelihoods of the labels, in nats."""

    prompt: str
    prediction: str
    truncated: bool
    scores: dict[str, float] | None = None


class Replies(BaseModel):
    """The answers, in the order of the examples."""

    predictions: list[Reply]


def create_app(
    predictor: Predictor,
    folder: PromptFolder,
    *,
    limits: Limits = Limits(),
    batching: BatchingOptions = BatchingOptions(),
) -> FastAPI:
    """Returns the application, which answers between startup and shutdown of its lifespan.

    Args:
      predictor: answers the examples.
      folder: of the predictor's prompts.
      limits: of requests.
      batching: options of dynamic batching.
    """
    batcher: Batcher[Prepared, Answer] = Batcher(
        predictor.run, batching, lambda size, seconds: metrics.observe_batch(size, seconds)
    )
    metrics = Metrics(
        queued=lambda: len(batcher),
        compiled=lambda: len(predictor.shapes),
        prompts=lambda: len(predictor.prompts),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.close()

    app = FastAPI(
        title="prompt-tuning",
        version=prompt_tuning.__version__,
        lifespan=lifespan,
        docs_url=None,  # would fetch its scripts from another host
        redoc_url=None,
    )
    app.add_middleware(LimitBody, limits=limits)
    app.add_middleware(CountRequests, metrics=metrics)
    _add_error_handlers(app)

    @app.get("/", include_in_schema=False)
    async def index() -> dict[str, Any]:
        requests = {
            f"{method.upper()} {path}": operation["description"]
            for path, operations in app.openapi()["paths"].items()
            for method, operation in operations.items()
        }
        return {
            "model": predictor.config.name,
            "prompts": sorted(predictor.prompts),
            "requests": requests,
            "schema": "/openapi.json",
        }

    @app.post("/predict", response_model_exclude_none=True)
    async def predict(body: Body) -> Reply | Replies:
        """Answers {"prompt": NAME, "inputs": TEXT}, or several as {"examples": [...]}.

        Instead of "inputs", an example may have the fields of the prompt's task. The texts in
        "labels": [TEXT, ...] are ranked.
        """
        is_one = isinstance(body, Question)
        questions = [body] if is_one else body.examples
        _check_size(questions, limits)
        places = [""] if is_one else [f"examples[{i}]." for i in range(len(questions))]
        prepared = await asyncio.to_thread(_prepare, predictor, questions, places)
        answers = await batcher.submit(prepared)
        replies = []
        for question, answer in zip(questions, answers, strict=True):
            metrics.examples.labels(prompt=question.prompt).inc()
            reply = Reply(
                prompt=question.prompt,
                prediction=answer.text,
                truncated=answer.truncated,
                scores=dict(answer.scores) or None,
            )
            replies.append(reply)
        return replies[0] if is_one else Replies(predictions=replies)

    @app.get("/prompts")
    async def prompts() -> dict[str, Any]:
        """Lists the prompts that examples can name."""
        return {"prompts": [_described(loaded) for loaded in folder.loaded]}

    @app.post("/prompts")
    async def rescan() -> dict[str, Any]:
        """Loads new and changed prompts from the folder, and removes deleted ones."""
        return dataclasses.asdict(await asyncio.to_thread(folder.rescan))

    @app.post("/prompts/{name:path}")
    async def load(name: str) -> dict[str, Any]:
        """Loads or reloads the prompt of this name from the folder."""
        return _described(await asyncio.to_thread(folder.load, name))

    @app.get("/health")
    async def health() -> JSONResponse:
        """Reports whether the server answers."""
        status, code = ("ok", 200) if batcher.running else ("stopping", 503)
        content = {"model": predictor.config.name, "prompts": len(predictor.prompts)}
        return JSONResponse({"status": status, **content}, status_code=code)

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Returns counters for Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _check_size(questions: Sequence[Question], limits: Limits) -> None:
    if len(questions) > limits.examples:
        raise UserError(
            f"The request has {len(questions)} examples; at most {limits.examples} are answered "
            "at once."
        )
    longest = max(len(question.labels) for question in questions)
    if longest > limits.labels:
        raise UserError(f"An example has {longest} labels; at most {limits.labels} are ranked.")


def _prepare(
    predictor: Predictor, questions: Sequence[Question], places: Sequence[str]
) -> list[Prepared]:
    prepared = []
    for question, place in zip(questions, places, strict=True):
        example = example_of(question, predictor.prompt(question.prompt).task, place)
        prepared.append(predictor.prepare(example, where=place.rstrip(".") or "body"))
    return prepared


def _described(loaded: Loaded) -> dict[str, Any]:
    metadata = loaded.metadata
    known = {"task": metadata.task, "step": metadata.step, "score": metadata.score}
    return {"name": loaded.name, "length": loaded.length, **known}


def _add_error_handlers(app: FastAPI) -> None:
    def error(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": text}, status_code=status, headers=headers)

    @app.exception_handler(UserError)
    async def user_error(request: Request, raised: UserError) -> JSONResponse:
        absent = isinstance(raised, UnknownPrompt | NoSuchPromptFile)
        return error(404 if absent else 422, str(raised))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, raised: RequestValidationError) -> JSONResponse:
        return error(422, first_mistake(raised.errors()))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, raised: HTTPException) -> JSONResponse:
        headers = dict(raised.headers or {})
        return error(
            raised.status_code, f"{raised.detail} ({request.method} {request.url.path}).", headers
        )

    @app.exception_handler(QueueFull)
    async def full(request: Request, raised: QueueFull) -> JSONResponse:
        return error(429, "Too many examples are waiting; try again.", {"retry-after": "1"})

    @app.exception_handler(Closed)
    async def closed(request: Request, raised: Closed) -> JSONResponse:
        return error(503, "The server is stopping.")

    @app.exception_handler(Exception)
    async def bug(request: Request, raised: Exception) -> JSONResponse:
        return error(500, "Something went wrong in the server; see its log.")
