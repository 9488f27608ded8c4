"""Starting and stopping: addresses, keys, loading while listening, draining."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import uvicorn
from fastapi import FastAPI

from limner.language_model import Embedder, LanguageModel
from limner.serving.application import Limits, create_application
from limner.serving.guard import Guard
from limner.serving.keys import KeyStore
from limner.serving.metrics import Metrics
from limner.serving.served import Registry, ServedEmbedder, ServedModel

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
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Loading:
    """What to load, by the name under which it is served."""

    models: Mapping[str, Callable[[], LanguageModel]]
    embedders: Mapping[str, Callable[[], Embedder]] = field(default_factory=dict)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


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
        self, loading: Loading, settings: Serving | None = None, store: KeyStore | None = None
    ) -> None:
        self.loading, self.settings = loading, settings or Serving()
        keys = keys_for(self.settings, store or KeyStore())
        self.registry, self.metrics = Registry(), Metrics()
        self.failure: Exception | None = None
        self._address: tuple[str, int] = (self.settings.host, self.settings.port)
        self._announce: Callable[[str], None] = logger.info
        host = self.settings.host
        local = {host, "localhost", "127.0.0.1", "[::1]"} if is_loopback(host) else None
        application = create_application(
            self.registry, self.metrics, lifespan=self._lifespan, limits=self.settings.limits
        )
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(
                Guard(application, keys=keys, hosts=local, metrics=self.metrics),
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
        # uvicorn sends itself the signal again when it has drained, for whoever is above
        with self._listen() as listening, suppress(KeyboardInterrupt):
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

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(self._load())
        yield
        await loading
        await self.registry.stop()

    async def _load(self) -> None:
        try:
            for name, load in self.loading.models.items():
                model = await asyncio.to_thread(load)
                self.registry.served[name] = ServedModel(
                    model,
                    name=name,
                    most_waiting=self.settings.limits.waiting,
                    metrics=self.metrics.of(name),
                )
            for name, load_embedder in self.loading.embedders.items():
                embedder = await asyncio.to_thread(load_embedder)
                self.registry.served[name] = ServedEmbedder(embedder, name=name)
        except Exception as error:  # raised again by `run`, when the server is down
            self.failure, self.uvicorn.should_exit = error, True
            return
        self.registry.ready = True
        self._announce(self.address)


def log_to_standard_error() -> None:
    """A line of JSON for each request, beside the package's other messages."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("limner.serving.requests")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
