"""The application: routes, and what every route shares."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from limner.serving import chat, completions, embeddings
from limner.serving.answering import Envelope, Json, Shape, chunks, ended_at_once, whole
from limner.serving.engine_thread import Submission
from limner.serving.errors import ApiError, server_error, wrong_body
from limner.serving.event_stream import EventStream, cancelled_on_disconnect
from limner.serving.metrics import Metrics
from limner.serving.requests import (
    Body,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    SamplingBody,
    TokenizeRequest,
)
from limner.serving.served import Registry, Served, ServedModel
from limner.serving.token_scores import Score

AnyBody = TypeVar("AnyBody", bound=Body)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a request may ask for."""

    body_bytes: int = 4_000_000
    """Bytes of a request's body."""
    waiting: int = 256
    """Answers that may wait, beside those that are computed."""


def create_application(
    registry: Registry,
    metrics: Metrics,
    *,
    lifespan: Lifespan | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The API over what is in `registry`.

    Args:
        registry: what is served; the lifespan fills it.
        metrics: where measurements go.
        lifespan: what happens before the first and after the last request.
        limits: what a request may ask for.
    """
    # The pages of documentation that FastAPI makes load scripts from other people's servers.
    application = FastAPI(title="limner", docs_url=None, redoc_url=None, lifespan=lifespan)
    application.state.registry, application.state.metrics = registry, metrics
    application.state.limits = limits or Limits()
    for path, route, body in POSTS:
        application.post(path, openapi_extra=_documented(body))(route)
    for path, asked in GETS:
        application.get(path)(asked)
    _describe(application)
    application.add_exception_handler(ApiError, _refused)
    application.add_exception_handler(HTTPException, _no_such_route)
    application.add_exception_handler(Exception, _failed)
    return application


def _documented(body: type[Body]) -> dict[str, Any]:
    """The body in the API's own description; it is read here and not by FastAPI, which says 422."""
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _describe(application: FastAPI) -> None:
    """Complete the description that /openapi.json gives."""
    description = application.openapi()
    bodies: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (body, "validation") for _, _, body in POSTS
    ]
    _, schemas = models_json_schema(bodies, ref_template="#/components/schemas/{model}")
    description["components"] = {"schemas": schemas["$defs"]}
    for path in description["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)


# Reading a request


async def read_body(request: Request, model: type[AnyBody]) -> AnyBody:
    """The body of a request. Raises ApiError: 415, 413 or 400."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # what a form of some web page could send without asking is never accepted
        raise ApiError(415, f"the body must be application/json, not {kind[:100] or 'untyped'}")
    most = request.app.state.limits.body_bytes
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise ApiError(413, f"the body has more than the {most} bytes that are taken")
        pieces.append(piece)
    try:
        return model.model_validate_json(b"".join(pieces))
    except ValidationError as error:
        raise wrong_body(model, error) from None


def _registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


# Generating


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    body = await read_body(request, ChatRequest)
    served = _registry(request).model(body.model)

    def prepare() -> list[Submission]:
        submissions = chat.submissions(served.model, body)
        served.check(submissions, "messages")
        return submissions

    submissions = await served.prepare(body, "messages", prepare)
    prompt_tokens = len(submissions[0].tokens)
    shape = chat.ChatShape(
        served.model.tokenizer, prompt_tokens, len(submissions), bool(body.logprobs)
    )
    return await _respond(
        request, body, served, shape, submissions, Envelope.of(served.name, "chat.completion")
    )


async def text_completions(request: Request) -> Response:
    """Continue texts."""
    body = await read_body(request, CompletionRequest)
    served = _registry(request).model(body.model)

    def prepare() -> tuple[list[completions.Prompt], list[Submission]]:
        given = completions.prompts(served.model, body)
        submissions = completions.submissions(served.model, body, given)
        served.check(submissions, "prompt")
        return given, submissions

    given, submissions = await served.prepare(body, "prompt", prepare)
    scores = await _prompt_scores(request, body, served, given)
    shape = completions.CompletionShape(body, given, scores, served.model.tokenizer)
    wanted = [] if body.max_tokens == 0 else submissions
    return await _respond(
        request, body, served, shape, wanted, Envelope.of(served.name, "text_completion")
    )


async def _prompt_scores(
    request: Request,
    body: CompletionRequest,
    served: ServedModel,
    given: Sequence[completions.Prompt],
) -> list[list[Score]]:
    """The scores of the prompts' tokens, if they are asked for and the client is still there."""
    if not body.echo or body.logprobs is None:
        return []
    scores: list[list[Score]] = []
    for prompt in given:
        if await request.is_disconnected():
            raise ApiError(499, "the client went away")
        scores.append(await served.score(prompt.tokens, body.logprobs))
    return scores


async def _respond(
    request: Request,
    body: SamplingBody,
    served: ServedModel,
    shape: chat.ChatShape | completions.CompletionShape,
    submissions: Sequence[Submission],
    envelope: Envelope,
) -> Response:
    """The response, whole or as a stream, of which nothing goes on when its reader is gone."""
    if submissions:
        answers = served.submit(submissions, shape.prompt_tokens)
        events, cancel = aiter(answers), answers.cancel
    else:
        events, cancel = ended_at_once(shape.count), lambda: None
    described: Shape = shape
    if body.stream:
        return EventStream(chunks(events, described, envelope, body.wants_usage), cancel)
    async with cancelled_on_disconnect(request.receive, cancel):
        return _json(await whole(events, shape.count, described, envelope))


def _json(content: Any) -> Response:
    return JSONResponse(content)


# Tokens and vectors


async def tokenize(request: Request) -> Response:
    """Token ids of a text, or of messages through the chat template."""
    body = await read_body(request, TokenizeRequest)
    served = _registry(request).model(body.model)
    tokenizer = served.model.tokenizer

    def prepare() -> list[int]:
        if body.messages is not None:
            return chat.prompt_of(tokenizer, body.messages, None)
        return tokenizer.encode(body.prompt or "", add_special_tokens=body.add_special_tokens)

    tokens = await served.prepare(body, "prompt" if body.messages is None else "messages", prepare)
    longest = served.model.context
    return _json({"tokens": tokens, "count": len(tokens), "max_model_len": longest})


async def detokenize(request: Request) -> Response:
    """The text of token ids, special tokens as the vocabulary spells them."""
    body = await read_body(request, DetokenizeRequest)
    served = _registry(request).model(body.model)
    tokenizer = served.model.tokenizer

    def prepare() -> str:
        for token in body.tokens:
            if not 0 <= token < served.model.config.vocabulary:
                raise ValueError(f"tokens holds {token}, which is no token of '{served.name}'")
        return tokenizer.decode(body.tokens, skip_special_tokens=False)

    return _json({"prompt": await served.prepare(body, "tokens", prepare)})


async def embed(request: Request) -> Response:
    """A vector for each text."""
    body = await read_body(request, EmbeddingRequest)
    served = _registry(request).embedder(body.model)
    prepare = partial(embeddings.response, served.embedder, served.name, body)
    return _json(await served.prepare(body, "input", prepare))


# What is there, and how it is


async def models(request: Request) -> Response:
    """What is served."""
    served = _registry(request).served.values()
    return _json({"object": "list", "data": [_described(one) for one in served]})


async def model(request: Request, name: str) -> Response:
    """One of those."""
    return _json(_described(_registry(request).any(name)))


def _described(served: Served) -> Json:
    return {
        "id": served.name, "object": "model", "created": served.created, "owned_by": "limner",
    }  # fmt: skip


async def health() -> Response:
    """The process is alive."""
    return _json({"status": "ok"})


async def ready(request: Request) -> Response:
    """Requests can be answered; 503 until then."""
    if _registry(request).ready:
        return _json({"status": "ready"})
    return JSONResponse({"status": "loading"}, 503)


async def measurements(request: Request) -> Response:
    """Measurements for Prometheus."""
    content = request.app.state.metrics.text()
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


POSTS: list[tuple[str, Callable[..., Any], type[Body]]] = [
    ("/v1/chat/completions", chat_completions, ChatRequest),
    ("/v1/completions", text_completions, CompletionRequest),
    ("/v1/embeddings", embed, EmbeddingRequest),
    ("/tokenize", tokenize, TokenizeRequest),
    ("/detokenize", detokenize, DetokenizeRequest),
]

GETS: list[tuple[str, Callable[..., Any]]] = [
    ("/v1/models", models),
    ("/v1/models/{name:path}", model),
    ("/health", health),
    ("/ready", ready),
    ("/metrics", measurements),
]


# Errors


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, error.headers)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path[:200]}"
    return JSONResponse(ApiError(error.status_code, message).body, error.status_code, error.headers)


async def _failed(request: Request, _: Exception) -> Response:
    name = request.state.request_id
    refusal = server_error(f"the server failed; its log says why, under {name}")
    return JSONResponse(refusal.body, refusal.status)
