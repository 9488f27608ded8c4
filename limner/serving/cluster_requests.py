"""Requests to a cluster: most are answered by a replica, some by this process, some by all."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from limner.serving.account import account
from limner.serving.administration import (
    LoadAdapterRequest,
    UnloadAdapterRequest,
    no_adapter,
    require_administrator,
    taken,
)
from limner.serving.cluster_replica import Forwarded, Piece
from limner.serving.errors import ApiError, server_error
from limner.serving.event_stream import cancelled_on_disconnect
from limner.serving.reading import as_json, read_body, read_content, registry_of
from limner.serving.registry import unknown_model
from limner.serving.replies import Deleted
from limner.serving.response_store import ResponseStore, Stored
from limner.serving.routing import Route

if TYPE_CHECKING:
    from limner.serving.cluster import ClusterServer

logger = logging.getLogger(__name__)

#: Why no model comes or goes.
KEPT = "a cluster serves the models that it was started with: start it anew"
#: The fields by which requests begin, in the order in which models read them.
BEGINNINGS = ("model", "instructions", "system", "tools", "messages", "prompt")
#: Where the items of a responses' input have their texts, however short they are written.
SAID = ("content", "text", "arguments", "output")


def forwarding(route: Route) -> Route:
    """A route that replicas answer, unless this process does."""
    own: dict[tuple[str, str], Callable[..., Any]] = {
        ("GET", "/health"): route.answer,
        ("GET", "/ready"): route.answer,
        ("GET", "/metrics"): measurements,
        ("GET", "/v1/responses/{response}"): route.answer,
        ("GET", "/v1/responses/{response}/input_items"): route.answer,
        ("DELETE", "/v1/responses/{response}"): route.answer,
        ("POST", "/v1/load_lora_adapter"): load_adapter,
        ("POST", "/v1/unload_lora_adapter"): unload_adapter,
        ("POST", "/v1/models/load"): refuse,
        ("DELETE", "/v1/models/{name:path}"): unload_model,
    }
    return replace(route, answer=own.get((route.method, route.path), forward))


async def forward(request: Request) -> Response:
    """Let a replica answer."""
    registry_of(request).check_ready()
    body = await read_content(request)
    fields = _fields(body)
    earlier = await _earlier(request, fields)
    begins = beginning(fields, earlier)
    return _relay(request, Forwarded(begins, _scope(request), body, earlier=earlier))


def _relay(request: Request, forwarded: Forwarded) -> Response:
    """The answer of a replica that knows whose the request is, and all adapters."""
    cluster = _cluster(request)
    sent = replace(forwarded, key=account(request).key, attached=cluster.attached)
    return Relay(cluster.ask(sent))


def _scope(request: Request) -> Scope:
    names = ("method", "path", "raw_path", "query_string", "headers", "client", "http_version")
    known = {name: request.scope[name] for name in names}
    return known | {"root_path": "", "state": {"request_id": request.state.request_id}}


async def measurements(request: Request) -> Response:
    """Measurements for Prometheus, of all replicas."""
    registry_of(request).check_ready()
    content = await _cluster(request).measurements()
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


async def refuse() -> Response:
    """Replicas come and go, and each must serve the same models."""
    raise ApiError(400, KEPT)


# Adapters


async def load_adapter(request: Request) -> Response:
    """Load an adapter in all replicas, or in none."""
    registry_of(request).check_ready()
    require_administrator(request)
    body = await read_body(request, LoadAdapterRequest)
    name, cluster = body.lora_name, _cluster(request)
    # replicas need not work in this process's folder
    path = str(Path(body.lora_path).expanduser().absolute())
    lock: asyncio.Lock = request.app.state.loading
    async with lock:
        if name in cluster.attached.adapters:
            raise taken(name)
        asked = body.model_copy(update={"lora_path": path})
        await cluster.attach({**cluster.attached.adapters, name: asked})
    logger.info("loaded adapter %s in all replicas", name)
    described = {**_scope(request), "method": "GET", "path": f"/v1/models/{name}"}
    return _relay(request, Forwarded("", described, b""))


async def unload_adapter(request: Request) -> Response:
    """Unload an adapter from all replicas; answers under way with it go on to their end."""
    registry_of(request).check_ready()
    require_administrator(request)
    body = await read_body(request, UnloadAdapterRequest)
    return await _unload(request, body.lora_name, no_adapter(body.lora_name))


async def unload_model(request: Request, name: str) -> Response:
    """Unload an adapter by the route that unloads models; the models stay."""
    registry_of(request).check_ready()
    require_administrator(request)
    return await _unload(request, name, ApiError(400, KEPT))


async def _unload(request: Request, name: str, of_a_model: ApiError) -> Response:
    cluster = _cluster(request)
    models = cluster.loading.models
    lock: asyncio.Lock = request.app.state.loading
    async with lock:
        known = cluster.attached.adapters
        if name in models:
            raise of_a_model
        if name not in known:
            raise unknown_model(name, [*models, *known])
        await cluster.detach({other: how for other, how in known.items() if other != name})
    logger.info("unloaded adapter %s from all replicas", name)
    return as_json(Deleted(id=name, object="model").model_dump())


# How a request begins


def _fields(body: bytes) -> Mapping[str, Any]:
    """The fields of a body; none if it is no JSON object, which a replica will say."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


async def _earlier(request: Request, fields: Mapping[str, Any]) -> Stored | None:
    """The stored response that a request goes on from, which only this process has."""
    name = fields.get("previous_response_id")
    if not isinstance(name, str):
        return None
    store: ResponseStore = request.app.state.responses
    return await asyncio.to_thread(store.get, account(request).owner, name)


def beginning(fields: Mapping[str, Any], earlier: Stored | None = None) -> str:
    """The texts that a request's prompt begins with, for routing; empty if there are none."""
    said = [] if earlier is None else earlier.conversation
    asked = [*said, fields.get("input")]
    return "\n".join([*_texts([fields.get(name) for name in BEGINNINGS]), *_texts(asked, SAID)])


def _texts(value: Any, names: Collection[str] | None = None) -> Iterator[str]:
    """The texts and token ids in a value, one after another; of objects, under these names."""
    if isinstance(value, dict):
        value = [part for name, part in value.items() if names is None or name in names]
    if isinstance(value, list):
        for item in value:
            yield from _texts(item, names)
    elif value is not None:
        yield str(value)


class Relay(Response):
    """A replica's answer, passed on as it comes; it ends when its reader goes away."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer, self._begun = answer, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on. Raises ApiError if the request may use no more, or its replica is gone."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import RequestCancelledError

        request = Request(scope)
        async with cancelled_on_disconnect(receive, self.answer.cancel):
            try:
                async for pieces in self.answer:
                    for piece in pieces:
                        await self._pass_on(piece, request, send)
            except RequestCancelledError:
                return
            except RayError:
                logger.exception("a replica failed")
                if self._begun:
                    raise  # the connection is closed: what is half an answer must not look whole
                raise server_error("the replica that was to answer failed: try again") from None

    async def _pass_on(self, piece: Piece, request: Request, send: Send) -> None:
        used = account(request)
        if piece.model is not None:
            used.read(piece.model, piece.read)
        for _ in range(piece.wrote):
            used.wrote()
        if piece.stored is not None:
            store: ResponseStore = request.app.state.responses
            await asyncio.to_thread(store.put, used.owner, piece.stored)
        if piece.message is not None:
            self._begun = True
            await send(piece.message)


def _cluster(request: Request) -> ClusterServer:
    found: ClusterServer = request.app.state.cluster
    return found
