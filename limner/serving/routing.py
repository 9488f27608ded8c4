"""Routes, and the API's own description of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from limner.serving.replies import ErrorReply
from limner.serving.requests import Body

Mode = Literal["validation", "serialization"]


#: An event of a stream, whose data are JSON or the word [DONE].
EVENT = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


@dataclass(frozen=True)
class Route:
    """A method and a path, what answers them, and the forms of body and reply."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    answer: Callable[..., Any]
    body: type[Body] | None = None
    reply: type[BaseModel] | None = None
    error: type[BaseModel] | None = ErrorReply
    stream: bool = False
    """Whether the reply may be a stream of server-sent events instead."""
    text: bool = False
    """Whether the reply is plain text."""


def add_routes(application: FastAPI, routes: Sequence[Route]) -> None:
    """Let the application answer, and let /openapi.json say so.

    Bodies are read by the routes themselves and not by FastAPI, which would say 422.
    """
    for route in routes:
        application.add_api_route(route.path, route.answer, methods=[route.method])
    description = application.openapi()
    for route in routes:
        described = description["paths"][route.path.replace(":path", "")][route.method.lower()]
        if route.body is not None:
            schema = _reference(route.body)
            described["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": schema}},
            }
        described["responses"] = _replies(route)
    description["components"] = {"schemas": _schemas(routes)}
    # FastAPI would make its own anew when further routes are added, such as those of the page
    application.openapi = lambda: description  # type: ignore[method-assign]


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _replies(route: Route) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    if route.reply is not None:
        kinds["application/json"] = {"schema": _reference(route.reply)}
    if route.stream:
        kinds["text/event-stream"] = {"schema": EVENT}
    if route.text:
        kinds["text/plain"] = {"schema": {"type": "string"}}
    replies: dict[str, Any] = {"200": {"description": "The answer", "content": kinds}}
    if route.error is not None:
        refused = {"application/json": {"schema": _reference(route.error)}}
        replies["default"] = {"description": "Why there is none", "content": refused}
    return replies


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    """The schemas of all bodies and replies, each once."""
    asked: list[tuple[type[BaseModel] | None, Mode]] = []
    for route in routes:
        asked += [
            (route.body, "validation"), (route.reply, "serialization"),
            (route.error, "serialization"),
        ]  # fmt: skip
    known = dict.fromkeys((model, mode) for model, mode in asked if model is not None)
    _, schemas = models_json_schema(list(known), ref_template="#/components/schemas/{model}")
    found: dict[str, Any] = schemas["$defs"]
    return found
