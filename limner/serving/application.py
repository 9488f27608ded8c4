"""The application: routes, and what every route shares."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from limner.serving import (
    administration,
    chat,
    completions,
    embeddings,
    messages,
    ranking,
    replies,
    responses,
    turn_replies,
)
from limner.serving.account import account
from limner.serving.answering import Envelope, Shape, chunks, ended_at_once, failure, whole
from limner.serving.engine_thread import AnswerFailedError, Submission
from limner.serving.errors import ApiError, error_body, server_error
from limner.serving.event_stream import EventStream, cancelled_on_disconnect
from limner.serving.message_requests import CountRequest, MessageRequest
from limner.serving.metrics import Metrics
from limner.serving.opening import Opening
from limner.serving.page import add_page
from limner.serving.reading import as_json, read_body, registry_of
from limner.serving.registry import Registry
from limner.serving.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    SamplingBody,
    TokenizeRequest,
)
from limner.serving.response_requests import ResponseRequest
from limner.serving.response_store import ResponseStore
from limner.serving.routing import Route, add_routes
from limner.serving.served import ServedModel
from limner.serving.token_scores import Score

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a request may ask for."""

    body_bytes: int = 4_000_000
    """Bytes of a request's body."""
    waiting: int = 256
    """Answers that may wait, beside those that are computed."""
    body_seconds: float = 60
    """How long a request's body may take to come."""
    answer_seconds: float | None = None
    """How long a request's answers may take, queueing included; None: for ever."""
    unload_seconds: float = 30
    """How long answers under way may take when their model is unloaded."""
    requests: int | None = None
    """Requests answered side by side; None: as many as come."""


def create_application(
    registry: Registry,
    metrics: Metrics,
    *,
    lifespan: Lifespan | None = None,
    limits: Limits | None = None,
    opening: Opening | None = None,
    store: ResponseStore | None = None,
    routes: Sequence[Route] | None = None,
) -> FastAPI:
    """The API over what is in `registry`.

    Args:
        registry: what is served; the lifespan fills it.
        metrics: where measurements go.
        lifespan: what happens before the first and after the last request.
        limits: what a request may ask for.
        opening: how models are opened while the server runs.
        store: where responses are kept; the user's data folder if not given.
        routes: who answers; `ROUTES` if not given.
    """
    # The pages of documentation that FastAPI makes load scripts from other people's servers.
    application = FastAPI(title="limner", docs_url=None, redoc_url=None, lifespan=lifespan)
    application.state.registry, application.state.metrics = registry, metrics
    application.state.limits, application.state.opening = limits or Limits(), opening or Opening()
    application.state.loading, application.state.responses = (
        asyncio.Lock(),
        store or ResponseStore(),
    )
    add_routes(application, ROUTES if routes is None else routes)
    add_page(application)
    application.add_exception_handler(ApiError, _refused)
    application.add_exception_handler(HTTPException, _no_such_route)
    application.add_exception_handler(Exception, _failed)
    return application


# Generating


async def chat_completions(request: Request) -> Response:
    """Answer a conversation."""
    body = await read_body(request, ChatRequest)
    served = registry_of(request).model(body.model)

    def prepare() -> list[Submission]:
        submissions = chat.submissions(served.model, body)
        served.check(submissions, "messages")
        return submissions

    submissions = await served.prepare(body, "messages", prepare)
    shape = chat.ChatShape(served.model.tokenizer, body, len(submissions[0].tokens))
    return await _respond(
        request, body, served, shape, submissions, Envelope.of(served.name, "chat.completion")
    )


async def text_completions(request: Request) -> Response:
    """Continue texts."""
    body = await read_body(request, CompletionRequest)
    served = registry_of(request).model(body.model)

    def prepare() -> tuple[list[completions.Prompt], list[Submission]]:
        given = completions.prompts(served.model, body)
        submissions = completions.submissions(served.model, body, given)
        served.check(submissions, "prompt")
        return given, submissions

    given, submissions = await served.prepare(body, "prompt", prepare)
    if body.max_tokens == 0:  # otherwise they are charged with what is generated
        read = sum(len(prompt.tokens) for prompt in given)
        account(request).read(served.name, read)
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
    count = body.logprobs
    return [await _while_there(request, served.score(one.tokens, count)) for one in given]


async def _while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What comes of some work, which is dropped if the client goes away. Raises ApiError."""
    task = asyncio.ensure_future(work)
    async with cancelled_on_disconnect(request.receive, task.cancel):
        try:
            return await task
        except asyncio.CancelledError:
            raise ApiError(499, "the client went away") from None
        except AnswerFailedError as error:
            raise failure(error) from None


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
        answers = served.submit(submissions, shape.prompt_tokens, account(request))
        events, cancel, cached = aiter(answers), answers.cancel, lambda: answers.cached_tokens
    else:
        events, cancel, cached = ended_at_once(shape.count), lambda: None, lambda: 0
    described: Shape = shape
    if body.stream:
        counted = cached if body.wants_usage else None
        return EventStream(chunks(events, described, envelope, counted), cancel)
    async with cancelled_on_disconnect(request.receive, cancel):
        return as_json(await whole(events, shape.count, described, envelope, cached))


# Tokens and vectors


async def tokenize(request: Request) -> Response:
    """Token ids of a text, or of messages through the chat template."""
    body = await read_body(request, TokenizeRequest)
    served = registry_of(request).model(body.model)
    tokenizer = served.model.tokenizer

    def prepare() -> list[int]:
        if body.messages is not None:
            return chat.prompt_of(tokenizer, body.messages, None)
        return tokenizer.encode(body.prompt or "", add_special_tokens=body.add_special_tokens)

    tokens = await served.prepare(body, "prompt" if body.messages is None else "messages", prepare)
    longest = served.model.context
    return as_json({"tokens": tokens, "count": len(tokens), "max_model_len": longest})


async def detokenize(request: Request) -> Response:
    """The text of token ids, special tokens as the vocabulary spells them."""
    body = await read_body(request, DetokenizeRequest)
    served = registry_of(request).model(body.model)
    tokenizer = served.model.tokenizer

    def prepare() -> str:
        for token in body.tokens:
            if not 0 <= token < served.model.config.vocabulary:
                raise ValueError(f"tokens holds {token}, which is no token of '{served.name}'")
        return tokenizer.decode(body.tokens, skip_special_tokens=False)

    return as_json({"prompt": await served.prepare(body, "tokens", prepare)})


async def embed(request: Request) -> Response:
    """A vector for each text."""
    body = await read_body(request, EmbeddingRequest)
    served = registry_of(request).embedder(body.model)
    prepare = partial(embeddings.tokens_of, served.embedder, served.name, body)
    tokens = await served.prepare(body, "input", prepare)
    account(request).read(served.name, sum(map(len, tokens)))
    vectors = await _while_there(request, served.embed(tokens))
    cut = embeddings.cut(served.embedder, vectors, body.dimensions)
    write = partial(embeddings.response, served.name, body, cut, sum(map(len, tokens)))
    return as_json(await served.prepare(body, "input", write))


# What is there, and how it is


async def models(request: Request) -> Response:
    """What is served."""
    served = registry_of(request).served.values()
    return as_json({"object": "list", "data": [replies.describe(one) for one in served]})


async def model(request: Request, name: str) -> Response:
    """One of those."""
    return as_json(replies.describe(registry_of(request).any(name)))


async def health() -> Response:
    """The process is alive."""
    return as_json({"status": "ok"})


async def ready(request: Request) -> Response:
    """Requests can be answered; 503 until then."""
    if registry_of(request).ready:
        return as_json({"status": "ready"})
    return JSONResponse({"status": "loading"}, 503)


async def measurements(request: Request) -> Response:
    """Measurements for Prometheus."""
    content = request.app.state.metrics.text()
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


ROUTES = [
    Route(
        "POST", "/v1/chat/completions", chat_completions, ChatRequest, replies.ChatReply,
        stream=True,
    ),
    Route(
        "POST", "/v1/completions", text_completions, CompletionRequest, replies.TextReply,
        stream=True,
    ),
    Route("POST", "/v1/embeddings", embed, EmbeddingRequest, replies.EmbeddingReply),
    Route("POST", "/tokenize", tokenize, TokenizeRequest, replies.TokenizeReply),
    Route("POST", "/detokenize", detokenize, DetokenizeRequest, replies.DetokenizeReply),
    Route(
        "POST", "/v1/responses", responses.create_response, ResponseRequest,
        turn_replies.ResponseReply, stream=True,
    ),
    Route(
        "GET", "/v1/responses/{response}", responses.get_response,
        reply=turn_replies.ResponseReply,
    ),
    Route("DELETE", "/v1/responses/{response}", responses.delete_response, reply=replies.Deleted),
    Route(
        "GET", "/v1/responses/{response}/input_items", responses.get_input_items,
        reply=turn_replies.ItemsReply,
    ),
    Route(
        "POST", "/v1/messages", messages.create_message, MessageRequest, turn_replies.MessageReply,
        turn_replies.MessageErrorReply, stream=True,
    ),
    Route(
        "POST", "/v1/messages/count_tokens", messages.count_tokens, CountRequest,
        turn_replies.CountReply, turn_replies.MessageErrorReply,
    ),
    Route("POST", "/v1/score", ranking.score, ranking.ScoreRequest, replies.ScoreReply),
    Route("POST", "/v1/rerank", ranking.rerank, ranking.RerankRequest, replies.RerankReply),
    Route("POST", "/v2/rerank", ranking.rerank, ranking.RerankRequest, replies.RerankReply),
    Route(
        "POST", "/v1/models/load", administration.load_model, administration.LoadRequest,
        replies.ModelReply,
    ),
    Route(
        "POST", "/v1/load_lora_adapter", administration.load_adapter,
        administration.LoadAdapterRequest, replies.ModelReply,
    ),
    Route(
        "POST", "/v1/unload_lora_adapter", administration.unload_adapter,
        administration.UnloadAdapterRequest, replies.Deleted,
    ),
    Route("GET", "/v1/models", models, reply=replies.ModelsReply),
    Route("GET", "/v1/models/{name:path}", model, reply=replies.ModelReply),
    Route("DELETE", "/v1/models/{name:path}", administration.unload_model, reply=replies.Deleted),
    Route("GET", "/health", health, reply=replies.Status),
    Route("GET", "/ready", ready, reply=replies.Status),
    Route("GET", "/metrics", measurements, text=True),
]  # fmt: skip


# Errors


def _say(request: Request, error: ApiError) -> Response:
    body = error_body(request.url.path, error, request.state.request_id)
    return JSONResponse(body, error.status, error.headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _say(request, error)


async def _no_such_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path[:200]}"
    return _say(request, ApiError(error.status_code, message, headers=error.headers))


async def _failed(request: Request, _: Exception) -> Response:
    name = request.state.request_id
    return _say(request, server_error(f"the server failed; its log says why, under {name}"))
