"""Routes for whoever runs the server: models and adapters come and go while it runs."""

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
from limner.serving.registry import Registry
from limner.serving.replies import Deleted, describe
from limner.serving.requests import Body
from limner.serving.served import Served

logger = logging.getLogger(__name__)

#: What clients may call a model.
NAME = r"^[^/?#\s][^?#\s]*$"


class LoadRequest(Body):
    """The body of /v1/models/load."""

    model: str = Field(min_length=1, max_length=1000)
    """a name of the catalogue or of the hub, or a path in one of the server's model folders"""
    name: str | None = Field(default=None, max_length=200, pattern=NAME)
    """what clients call it; its own name, or that of its file or folder, if not given"""


class LoadAdapterRequest(Body):
    """The body of /v1/load_lora_adapter, as vLLM's clients send it."""

    lora_name: str = Field(max_length=200, pattern=NAME)
    """what clients call the model with the adapter"""
    lora_path: str = Field(min_length=1, max_length=1000)
    """a folder with an adapter as the peft library saves it, in one of the server's model folders
    """
    base_model_name: str | None = Field(default=None, max_length=200)
    """the model that it is for, if several are served"""


class UnloadAdapterRequest(Body):
    """The body of /v1/unload_lora_adapter, as vLLM's clients send it."""

    lora_name: str = Field(max_length=200, pattern=NAME)
    """what clients call the model with the adapter"""


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


async def load_adapter(request: Request) -> Response:
    """Load an adapter; answers under way go on, and new ones can ask for it by its name."""
    require_administrator(request)
    body = await read_body(request, LoadAdapterRequest)
    lock: asyncio.Lock = request.app.state.loading
    async with lock:
        served = await attach(registry_of(request), _opening(request), body)
    return as_json(describe(served))


async def attach(registry: Registry, opening: Opening, body: LoadAdapterRequest) -> Served:
    """Serve an adapter. Raises ApiError if that cannot be."""
    parent = registry.model(body.base_model_name)
    if body.lora_name in registry.served:
        raise taken(body.lora_name)
    if parent.parent is not None:
        raise ApiError(400, f"'{parent.name}' is an adapter itself", param="base_model_name")
    try:
        opening.check_adapter(body.lora_path)
        await asyncio.to_thread(parent.model.attach, body.lora_name, body.lora_path)
    except (ValueError, OSError) as error:
        raise ApiError(400, " ".join(str(error).split()), param="lora_path") from None
    parent.check_open()
    logger.info("loaded adapter %s of %s", body.lora_name, parent.name)
    return registry.add_adapter(parent, body.lora_name)


def taken(name: str) -> ApiError:
    """There is something of this name."""
    return ApiError(409, f"there is a model '{name}' already: unload it or give another name")


def no_adapter(name: str) -> ApiError:
    """What has this name is a model."""
    return ApiError(400, f"'{name}' is no adapter", param="lora_name")


async def unload_adapter(request: Request) -> Response:
    """Unload an adapter; answers under way with it go on to their end."""
    require_administrator(request)
    body = await read_body(request, UnloadAdapterRequest)
    registry = registry_of(request)
    if registry.any(body.lora_name).parent is None:
        raise no_adapter(body.lora_name)
    await registry.remove(body.lora_name, request.app.state.limits.unload_seconds)
    logger.info("unloaded adapter %s", body.lora_name)
    return as_json(Deleted(id=body.lora_name, object="model").model_dump())


def _opening(request: Request) -> Opening:
    found: Opening = request.app.state.opening
    return found
