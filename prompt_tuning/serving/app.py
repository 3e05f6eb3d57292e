"""The HTTP interface: `POST /predict`, `/prompts`, `/health` and `/metrics`; `/` lists them.

Every answer is JSON (but for /metrics); whatever goes wrong is `{"error": "one line"}` with a
status of 4xx where the client can mend it. The server itself is in `server.py`.
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
from prompt_tuning.serving.questions import Body, Question, Questions, example_of, first_mistake


class Prediction(BaseModel):
    """The answer to one example; `scores` are log-likelihoods of the labels, in nats."""

    prompt: str
    prediction: str
    truncated: bool
    scores: dict[str, float] | None = None


class Predictions(BaseModel):
    """The answers, in the order of the examples."""

    predictions: list[Prediction]


REQUESTS = {
    "POST /predict": 'answers {"prompt": NAME, "inputs": TEXT, "labels": [TEXT, ...] or left out}, '
    'with the fields of the prompt\'s task or "inputs"; or {"examples": [...]} of these',
    "GET /prompts": "lists the prompts",
    "POST /prompts": "loads what is new or changed in the folder, and drops what is gone",
    "POST /prompts/{name}": "loads one prompt",
    "GET /health": "says whether the server answers",
    "GET /metrics": "counters for Prometheus",
}
"""What `/` lists."""


def create_app(
    predictor: Predictor,
    folder: PromptFolder,
    *,
    limits: Limits = Limits(),
    batching: BatchingOptions = BatchingOptions(),
) -> FastAPI:
    """Returns the application; it works from start-up to shutdown of its lifespan.

    Args:
      predictor: answers.
      folder: where its prompts come from.
      limits: what a request may hold.
      batching: how requests share batches.
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
        docs_url=None,  # they fetch their scripts from another host
        redoc_url=None,
    )
    app.add_middleware(LimitBody, limits=limits)
    app.add_middleware(CountRequests, metrics=metrics)
    _add_error_handlers(app)

    @app.get("/", include_in_schema=False)
    async def index() -> dict[str, Any]:
        """Lists what can be asked."""
        return {
            "model": predictor.config.name,
            "prompts": sorted(predictor.prompts),
            "requests": REQUESTS,
            "schema": "/openapi.json",
        }

    @app.post("/predict", response_model_exclude_none=True)
    async def predict(body: Body) -> Prediction | Predictions:
        """Answers one example, or several."""
        questions = body.examples if isinstance(body, Questions) else [body]
        _check_size(questions, limits)
        is_one = isinstance(body, Question)
        places = [""] if is_one else [f"examples[{i}]." for i in range(len(questions))]
        prepared = await asyncio.to_thread(_prepare, predictor, questions, places)
        answers = await batcher.submit(prepared)
        predictions = []
        for question, answer in zip(questions, answers, strict=True):
            metrics.examples.labels(prompt=question.prompt).inc()
            predictions.append(
                Prediction(
                    prompt=question.prompt,
                    prediction=answer.text,
                    truncated=answer.truncated,
                    scores=dict(answer.scores) or None,
                )
            )
        if isinstance(body, Questions):
            return Predictions(predictions=predictions)
        return predictions[0]

    @app.get("/prompts")
    async def prompts() -> dict[str, Any]:
        """Lists the prompts that examples can name."""
        return {"prompts": [_described(loaded) for loaded in folder.loaded]}

    @app.post("/prompts")
    async def rescan() -> dict[str, Any]:
        """Looks through the folder: loads what is new or changed, drops what is gone."""
        return dataclasses.asdict(await asyncio.to_thread(folder.rescan))

    @app.post("/prompts/{name:path}")
    async def load(name: str) -> dict[str, Any]:
        """Loads the prompt of this name from the folder, or loads it again."""
        return _described(await asyncio.to_thread(folder.load, name))

    @app.get("/health")
    async def health() -> JSONResponse:
        """Says whether the server answers."""
        status = {
            "status": "ok" if batcher.running else "stopping",
            "model": predictor.config.name,
            "prompts": len(predictor.prompts),
        }
        return JSONResponse(status, status_code=200 if batcher.running else 503)

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Gives the counters to Prometheus."""
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
        return error(429, "Too many examples wait already; try again.", {"retry-after": "1"})

    @app.exception_handler(Closed)
    async def closed(request: Request, raised: Closed) -> JSONResponse:
        return error(503, "The server is stopping.")

    @app.exception_handler(Exception)
    async def bug(request: Request, raised: Exception) -> JSONResponse:
        return error(500, "Something went wrong in the server; its log says what.")
