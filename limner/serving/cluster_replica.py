"""A replica in a cluster: the whole application, asked through Ray instead of a socket.

What travels is small: a request as one value, and its answer as the messages that the application
sends, several at once if they have piled up. Nothing here needs Ray but a replica's name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Scope

from limner.serving.account import Account
from limner.serving.administration import LoadAdapterRequest, attach
from limner.serving.application import Limits, create_application
from limner.serving.errors import ApiError
from limner.serving.keys import Key
from limner.serving.metrics import Metrics
from limner.serving.registry import Registry
from limner.serving.response_store import ResponseStore, Stored
from limner.serving.server import Loading

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attached:
    """The adapters that every replica is to serve, by name, each as it was asked for.

    Those that a replica is started with have None. Each request brings them, so that a replica that
    was started later knows them too; by its number an older list undoes nothing.
    """

    adapters: Mapping[str, LoadAdapterRequest | None] = field(default_factory=dict)
    number: int = 0


@dataclass(frozen=True)
class Forwarded:
    """A request on its way to a replica."""

    prompt: str
    """What routing goes by: requests that begin alike here should meet in one replica."""
    scope: Scope
    body: bytes
    key: Key | None = None
    attached: Attached = field(default_factory=Attached)
    earlier: Stored | None = None
    """The stored response that it goes on from."""


@dataclass(frozen=True)
class Piece:
    """Part of an answer on its way back, and what its request has used meanwhile."""

    message: Message | None = None
    model: str | None = None
    read: int = 0
    wrote: int = 0
    stored: Stored | None = None
    """A response to keep, before what comes next is passed on."""


class Replica:
    """The models and the application over them; Ray Serve makes one in each process.

    Args:
        loading: what is served.
        limits: what a request may ask for.
    """

    def __init__(self, loading: Loading, limits: Limits) -> None:
        self.opening, self.unload_seconds = loading.opening, limits.unload_seconds
        self.metrics = Metrics()
        self.registry = Registry(
            self.metrics, most_waiting=limits.waiting, most_seconds=limits.answer_seconds
        )
        self.application = create_application(self.registry, self.metrics, limits=limits)
        self._loaded = {name: load() for name, load in loading.models.items()}
        self._attached, self._number = dict[str, LoadAdapterRequest | None](), 0
        self._following = asyncio.Lock()

    async def answer(self, forwarded: Forwarded) -> AsyncIterator[list[Piece]]:
        """The answer to a request as it comes. Closing the iterator is the client's going away."""
        await self.begin()
        for error in await self.follow(forwarded.attached):
            logger.error("an adapter that the other replicas have is missing here: %s", error)
        exchange = _Exchange(forwarded)
        task = asyncio.create_task(exchange.run(self.application))
        try:
            async for pieces in exchange.pieces():
                yield pieces
            await task
        finally:
            exchange.gone.set()

    async def measurements(self) -> tuple[str, str]:
        """The replica's name, and its measurements in Prometheus' form."""
        from ray import serve

        name = serve.get_replica_context().replica_id.unique_id
        return name, self.metrics.text().decode()

    async def begin(self) -> list[str]:
        """Start the engine threads, on the loop that requests come by; the adapters' names."""
        for name, model in self._loaded.items():
            self.registry.add(name, model)
        if self._loaded:
            served = self.registry.served.values()
            self._attached = {one.name: None for one in served if one.parent is not None}
        self._loaded = {}
        self.registry.ready = True
        return list(self._attached)

    async def follow(self, wanted: Attached) -> list[ApiError]:
        """Serve these adapters and no others; what is wrong with those that cannot be loaded."""
        if wanted.number <= self._number:
            return []  # whoever knows no newer list need not wait for what is being loaded
        async with self._following:
            if wanted.number <= self._number:
                return []
            await self.begin()
            errors = await self._attach_all(wanted.adapters)
            self._number = wanted.number
            return errors

    async def _attach_all(self, wanted: Mapping[str, LoadAdapterRequest | None]) -> list[ApiError]:
        errors = []
        for name in [*self._attached]:
            if name not in wanted or wanted[name] != self._attached[name]:
                await self.registry.remove(name, self.unload_seconds)
                del self._attached[name]
        for name, body in wanted.items():
            if body is not None and name not in self._attached:
                try:
                    await attach(self.registry, self.opening, body)
                    self._attached[name] = body
                except ApiError as error:
                    errors.append(error)
        return errors


class _Exchange:
    """One request and its answer, between the application and who asks."""

    def __init__(self, forwarded: Forwarded) -> None:
        self.gone = asyncio.Event()
        self._body: bytes | None = forwarded.body
        self._out: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._account = _ReportedAccount(self._out, forwarded.key)
        responses = _ReportedResponses(self._out, forwarded.earlier)
        state = {**forwarded.scope["state"], "account": self._account, "responses": responses}
        self._scope = {**forwarded.scope, "type": "http", "state": state}

    async def run(self, application: Any) -> None:
        """Let the application answer."""
        try:
            await application(self._scope, self._receive, self._send)
        finally:
            self._out.put_nowait(None)

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """What it sends, until it has ended."""
        while True:
            found = [await self._out.get()]
            while not self._out.empty():
                found.append(self._out.get_nowait())
            yield [piece for piece in found if piece is not None]
            if found[-1] is None:
                return

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._out.put_nowait(Piece(message, wrote=self._account.unreported()))


class _ReportedAccount(Account):
    """Tells who asked what the request uses; the limits are kept there."""

    def __init__(self, out: asyncio.Queue[Piece | None], key: Key | None) -> None:
        super().__init__(key)
        self._out, self._reported = out, 0

    def read(self, model: str, tokens: int) -> None:
        """The request makes this model read a prompt."""
        super().read(model, tokens)
        self._out.put_nowait(Piece(model=model, read=tokens))

    def unreported(self) -> int:
        """Tokens written since the last time."""
        new = self.completion_tokens - self._reported
        self._reported = self.completion_tokens
        return new


class _ReportedResponses(ResponseStore):
    """Keeps no response: whoever asked sends the earlier one along, and gets the new one."""

    def __init__(self, out: asyncio.Queue[Piece | None], earlier: Stored | None) -> None:
        super().__init__()
        self._out, self._earlier = out, earlier
        self._loop = asyncio.get_running_loop()

    def get(self, owner: str, name: str) -> Stored | None:
        """The earlier response, which was looked up under its owner and its name."""
        return self._earlier

    def put(self, owner: str, stored: Stored) -> None:
        """Give it to whoever asked; called in a thread."""
        self._loop.call_soon_threadsafe(self._out.put_nowait, Piece(stored=stored))
