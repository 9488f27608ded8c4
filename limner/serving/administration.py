"""Routes for whoever runs the server: models come and go while it runs."""

from __future__ import annotations

import asyncio
import logging

from fastapi import Request, Response
from pydantic import Field

from limner.serving.account import account
from limner.serving.errors import ApiError
from limner.serving.guard import is_loopback
from limner.serving.opening import Opening, called
from limner.serving.reading import as_json, read_body, registry_of
from limner.serving.replies import Deleted, describe
from limner.serving.requests import Body

logger = logging.getLogger(__name__)


class LoadRequest(Body):
    """The body of /v1/models/load."""

    model: str = Field(min_length=1, max_length=1000)
    """a name of the catalogue or of the hub, or a path in one of the server's model folders"""
    name: str | None = Field(default=None, max_length=200, pattern=r"^[^/?#\s][^?#\s]*$")
    """what clients call it; its own name, or that of its file or folder, if not given"""


def require_administrator(request: Request) -> None:
    """Raise ApiError (403) unless the request may change what is served.

    That takes a key made with `admin=true`; where no keys are asked for, only this machine may.
    """
    key = account(request).key
    if key is not None:
        if not key.rights.admin:
            raise ApiError(
                403, f"the key '{key.name}' may not do this: make one with "
                "`limner keys create NAME admin=true`", code="not_an_administrator",
            )  # fmt: skip
    elif request.client is None or not is_loopback(request.client.host):
        raise ApiError(
            403, "without keys only the server's own machine may do this",
            code="not_an_administrator",
        )  # fmt: skip


async def load_model(request: Request) -> Response:
    """Load a model; the answer comes when it can be asked."""
    require_administrator(request)
    body = await read_body(request, LoadRequest)
    registry, opening = registry_of(request), _opening(request)
    lock: asyncio.Lock = request.app.state.loading
    async with lock:  # one at a time, so that two do not each find room in memory for themselves
        name = body.name or called(body.model)
        if not registry.ready or name in registry.served:
            raise ApiError(409, f"there is a model '{name}' already: unload it or give a name")
        try:
            opening.check_request(body.model)
            loaded = await asyncio.to_thread(opening.open, body.model)
        except (ValueError, OSError) as error:
            raise ApiError(400, " ".join(str(error).split()), param="model") from None
        logger.info("loaded %s", name)
        return as_json(describe(registry.add(name, loaded)))


async def unload_model(request: Request, name: str) -> Response:
    """Unload a model: what is under way may end for a while, and then ends with an error."""
    require_administrator(request)
    seconds: float = request.app.state.limits.unload_seconds
    await registry_of(request).remove(name, seconds)
    logger.info("unloaded %s", name)
    return as_json(Deleted(id=name, object="model").model_dump())


def _opening(request: Request) -> Opening:
    found: Opening = request.app.state.opening
    return found
