"""What every route does first: read the body, and find what is asked for."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from limner.serving.errors import ApiError, wrong_body
from limner.serving.registry import Registry
from limner.serving.requests import Body

AnyBody = TypeVar("AnyBody", bound=Body)

#: The rest of a body that was refused half-way is not waited for.
CLOSE = {"connection": "close"}


async def read_body(request: Request, model: type[AnyBody]) -> AnyBody:
    """The body of a request. Raises ApiError: 415, 413, 408 or 400."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # what a form of some web page could send without asking is never accepted
        raise ApiError(415, f"the body must be application/json, not {kind[:100] or 'untyped'}")
    content = await read_content(request)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise wrong_body(model, error) from None


async def read_content(request: Request) -> bytes:
    """The bytes of a body, of any kind. Raises ApiError: 413 or 408."""
    limits = request.app.state.limits
    pieces, size = [], 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limits.body_bytes:
                    most = limits.body_bytes
                    raise ApiError(
                        413, f"the body has more than the {most} bytes that are taken",
                        headers=CLOSE,
                    )  # fmt: skip
                pieces.append(piece)
    except TimeoutError:
        raise ApiError(
            408, f"the body did not come within {limits.body_seconds:g} seconds", headers=CLOSE
        ) from None
    return b"".join(pieces)


def registry_of(request: Request) -> Registry:
    """What is served."""
    found: Registry = request.app.state.registry
    return found


def as_json(content: Any, status: int = 200) -> JSONResponse:
    """A response."""
    return JSONResponse(content, status)
