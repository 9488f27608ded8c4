"""Starting and stopping: addresses, keys, loading while listening, draining."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI

from limner.serving.application import Limits, create_application
from limner.serving.connections import PatientProtocol
from limner.serving.guard import Guard, is_loopback
from limner.serving.keys import KeyStore
from limner.serving.metrics import Metrics
from limner.serving.opening import Loaded, Opening
from limner.serving.registry import Registry
from limner.serving.request_log import RequestLog
from limner.serving.response_store import ResponseStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """How a server is run."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 8000
    """0 takes a free one."""
    require_keys: bool = False
    """Ask for API keys on loopback too."""
    without_keys: bool = False
    """Let everybody in who reaches an address that is not loopback."""
    drain_seconds: int = 30
    """How long answers under way may take when the server is told to stop."""
    connections: int | None = None
    """Connections at once; further ones get 503. None: as many as come."""
    log: RequestLog = field(default_factory=RequestLog)
    """How requests are written down."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Loading:
    """What to load, by the name under which it is served."""

    models: Mapping[str, Callable[[], Loaded]]
    opening: Opening = field(default_factory=Opening)
    """How further models are opened while the server runs."""


def keys_for(settings: Serving, store: KeyStore) -> KeyStore | None:
    """The keys that requests need, or None if they need none.

    Raises ValueError rather than serve the network without keys that nobody waived.
    """
    local = is_loopback(settings.host)
    if settings.without_keys and settings.require_keys:
        raise ValueError("require_keys and without_keys contradict each other: give one of them")
    if settings.without_keys or (local and not settings.require_keys):
        return None
    if not store.list():
        raise ValueError(
            f"serving {settings.host} needs API keys and there are none: make one with "
            "`limner keys create NAME`"
            + ("" if local else ", or give --without-keys to let everybody in who reaches it")
        )
    return store


class Server:
    """A server that listens at once, loads in the background, and is ready when it has.

    Raises ValueError for an address that would be open to the network without keys.
    """

    def __init__(
        self,
        loading: Loading,
        settings: Serving | None = None,
        store: KeyStore | None = None,
        responses: ResponseStore | None = None,
    ) -> None:
        self.loading, self.settings = loading, settings or Serving()
        keys = keys_for(self.settings, store or KeyStore())
        limits = self.settings.limits
        self.metrics = Metrics()
        self.registry = Registry(
            self.metrics, most_waiting=limits.waiting, most_seconds=limits.answer_seconds
        )
        self.failure: Exception | None = None
        self._address: tuple[str, int] = (self.settings.host, self.settings.port)
        self._announce: Callable[[str], None] = logger.info
        host = self.settings.host
        local = {host, "localhost", "127.0.0.1", "[::1]"} if is_loopback(host) else None
        guard = Guard(
            self._application(responses),
            keys=keys,
            hosts=local,
            metrics=self.metrics,
            log=self.settings.log,
            most=limits.requests,
        )
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(
                guard,
                http=PatientProtocol,
                limit_concurrency=self.settings.connections,
                host=host,
                port=self.settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=self.settings.drain_seconds,
            )
        )

    def run(self, announce: Callable[[str], None] = logger.info) -> None:
        """Serve until told to stop (SIGTERM, Ctrl-C). Raises what loading raised.

        `announce` is called with the address when the server is ready.
        """
        self._announce = announce
        with self._listen() as listening, signals_are_no_failure():
            self.uvicorn.run(sockets=[listening])
        if self.failure is not None:
            raise self.failure

    @property
    def address(self) -> str:
        """Where it listens, once it does."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _listen(self) -> socket.socket:
        """Raises OSError that names the address if it is not to be had."""
        host, port = self.settings.host, self.settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family)
        except OSError as error:
            raise OSError(
                f"cannot listen on {host} port {port} ({error.strerror}): "
                "give another port, or port=0 for a free one"
            ) from None
        self._address = listening.getsockname()[:2]
        return listening

    def _application(self, responses: ResponseStore | None) -> FastAPI:
        return create_application(
            self.registry,
            self.metrics,
            lifespan=self._lifespan,
            limits=self.settings.limits,
            opening=self.loading.opening,
            store=responses,
        )

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(self._load())
        yield
        await loading
        await self._stop()

    async def _open_models(self) -> None:
        """Load what requests are answered with."""
        for name, load in self.loading.models.items():
            if self.uvicorn.should_exit:
                return
            self.registry.add(name, await asyncio.to_thread(load))

    async def _stop(self) -> None:
        """Let go of it again."""
        await self.registry.stop()

    async def _load(self) -> None:
        try:
            await self._open_models()
        except Exception as error:  # raised again by `run`, when the server is down
            self.failure, self.uvicorn.should_exit = error, True
            return
        if self.uvicorn.should_exit:
            return  # told to stop meanwhile
        self.registry.ready = True
        self._announce(self.address)


@contextmanager
def signals_are_no_failure() -> Iterator[None]:
    """Leave with success when told to stop.

    uvicorn drains, and then sends itself the signal again for whoever is above.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
