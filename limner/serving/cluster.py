"""One address for many replicas: requests come in here and Ray Serve takes them further.

Keys, limits, logs and the page stay in this process, as they are without a cluster; each replica
runs the whole application (`limner.serving.cluster_replica`). Ray's own HTTP proxies, which know no
keys, are not started.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from limner.serving.account import account
from limner.serving.application import ROUTES, create_application
from limner.serving.cluster_replica import Forwarded, Piece, Replica
from limner.serving.errors import ApiError, server_error
from limner.serving.event_stream import cancelled_on_disconnect
from limner.serving.keys import KeyStore
from limner.serving.reading import read_content, registry_of
from limner.serving.response_store import ResponseStore
from limner.serving.routing import Route
from limner.serving.server import Loading, Server, Serving

logger = logging.getLogger(__name__)

#: A replica's own queue says when it is full; Ray's limit must not come before.
MOST_ONGOING = 10_000
#: The fields by which requests begin, in the order in which models read them.
BEGINNINGS = ("model", "instructions", "system", "tools", "messages", "prompt", "input")


@dataclass(frozen=True)
class Placement:
    """How many replicas there are, and what each may use; a share of all if not given."""

    replicas: int = 2
    cpus: float | None = None
    gpus: float | None = None


class ClusterServer(Server):
    """A server whose models run in replicas.

    It joins the cluster that RAY_ADDRESS names, or the one that runs on this machine, and otherwise
    starts one here. Raises ValueError, beside what `Server` does, if Ray is not installed.
    """

    def __init__(
        self,
        loading: Loading,
        settings: Serving | None = None,
        store: KeyStore | None = None,
        placement: Placement | None = None,
    ) -> None:
        # Ray reports to its makers unless this is set before it is imported.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            from ray import serve
        except ModuleNotFoundError as error:
            raise ValueError(
                f"a cluster needs {error.name}: pip install 'limner[cluster]' brings it"
            ) from None
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self._serve, self.placement = serve, placement or Placement()
        self.name, self._deployed = f"limner-{secrets.token_hex(4)}", False
        super().__init__(loading, settings, store)

    def _application(self, responses: ResponseStore | None) -> FastAPI:
        application = create_application(
            self.registry,
            self.metrics,
            lifespan=self._lifespan,
            limits=self.settings.limits,
            store=responses,
            routes=[_forwarding(route) for route in ROUTES],
        )
        application.state.cluster = self
        return application

    async def _open_models(self) -> None:
        with signals_as_they_are():
            self.handle = await asyncio.to_thread(self._deploy)
        await self.handle.begin.remote()  # the way there takes seconds to make, too

    async def _stop(self) -> None:
        await super()._stop()
        await asyncio.to_thread(self._leave)

    def _deploy(self) -> Any:
        """Start the replicas, and wait until they have loaded. Raises ValueError if none fits."""
        import ray
        from ray.serve.config import RequestRouterConfig

        from limner.serving.cluster_routing import PrefixRouter

        try:
            ray.init(include_dashboard=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises just that
            raise OSError(f"Ray did not start, or did not answer: {_last_line(error)}") from error
        placed = shares(self.placement, ray.cluster_resources())
        quiet = {"enable_access_log": False, "log_level": "WARNING"}
        self._serve.start(proxy_location="Disabled", logging_config=quiet)
        deployment = self._serve.deployment(
            Replica,
            num_replicas=placed.replicas,
            max_ongoing_requests=MOST_ONGOING,
            ray_actor_options={"num_cpus": placed.cpus, "num_gpus": placed.gpus},
            request_router_config=RequestRouterConfig(request_router_class=PrefixRouter),
            logging_config=quiet,
        )
        bound = deployment.bind(self.loading, self.settings.limits)
        self._deployed = True
        try:
            return self._serve.run(bound, name=self.name, route_prefix=None)
        except RuntimeError as error:
            raise ValueError(f"the replicas did not start: {_last_line(error)}") from error

    def _leave(self) -> None:
        import ray

        if self._deployed:
            self._serve.delete(self.name)
        ray.shutdown()

    def ask(self, forwarded: Forwarded) -> Any:
        """The answer of a replica: an asynchronous iterator over lists of pieces."""
        return self.handle.options(stream=True).answer.remote(forwarded)

    async def measurements(self) -> bytes:
        """Those of this process and of all replicas."""
        found = await self.handle.broadcast("measurements").results_async()
        return merged([("", self.metrics.text().decode()), *found])


@contextmanager
def signals_as_they_are() -> Iterator[None]:
    """Set signal handlers again afterwards: Ray puts its own, which abort, in their place."""
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.getsignal(kind) for kind in kinds}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for kind, handler in before.items():
                signal.signal(kind, handler)


def _last_line(error: Exception) -> str:
    """What went wrong, of an error that tells where as well."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")


def shares(placement: Placement, resources: dict[str, float]) -> Placement:
    """What each replica gets of a cluster. Raises ValueError if there is not so much."""
    count = placement.replicas
    cpus, gpus = (resources.get(kind, 0.0) for kind in ("CPU", "GPU"))
    each = max(1.0, cpus // count) if placement.cpus is None else placement.cpus
    accelerators = float(gpus >= count) if placement.gpus is None else placement.gpus
    for kind, wanted, there in (("CPUs", each, cpus), ("GPUs", accelerators, gpus)):
        if wanted * count > there:
            raise ValueError(
                f"{count} replicas with {wanted:g} {kind} each need {wanted * count:g}, and the "
                f"cluster has {there:g}: ask for fewer replicas, or for less of each"
            )
    return Placement(count, each, accelerators)


# Requests


def _forwarding(route: Route) -> Route:
    """A route that replicas answer, unless this process does."""
    answers: dict[str, Callable[..., Any]] = {
        "/health": route.answer,
        "/ready": route.answer,
        "/metrics": measurements,
        "/v1/models/load": refuse,
        "/v1/load_lora_adapter": refuse,
        "/v1/unload_lora_adapter": refuse,
    }
    changes = route.method == "DELETE" and route.path.startswith("/v1/models/")
    return replace(route, answer=refuse if changes else answers.get(route.path, forward))


async def forward(request: Request) -> Response:
    """Let a replica answer."""
    registry_of(request).check_ready()
    body, known = await read_content(request), ("method", "path", "raw_path", "query_string")
    scope = {name: request.scope[name] for name in (*known, "headers", "client", "http_version")}
    scope |= {"root_path": "", "state": {"request_id": request.state.request_id}}
    forwarded = Forwarded(beginning(body), scope, body, account(request).key)
    return Relay(_cluster(request).ask(forwarded))


async def measurements(request: Request) -> Response:
    """Measurements for Prometheus, of all replicas."""
    registry_of(request).check_ready()
    content = await _cluster(request).measurements()
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")


async def refuse() -> Response:
    """Replicas come and go, and each must serve the same."""
    raise ApiError(400, "a cluster serves the models that it was started with: start it anew")


def beginning(body: bytes) -> str:
    """The texts that a request's prompt begins with, for routing; empty if there are none."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(fields, dict):
        return ""
    return "\n".join(_texts([fields.get(name) for name in BEGINNINGS]))


def _texts(value: Any) -> Iterator[str]:
    """The texts and token ids in a value, one after another."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
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
        if piece.message is not None:
            self._begun = True
            await send(piece.message)


def _cluster(request: Request) -> ClusterServer:
    found: ClusterServer = request.app.state.cluster
    return found


# Measurements


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        """What was collected."""
        yield from self.families


def merged(texts: Iterable[tuple[str, str]]) -> bytes:
    """Measurements in Prometheus' form, each with the name of the replica that it came from."""
    families: dict[str, Metric] = {}
    for replica, text in texts:
        for family in text_string_to_metric_families(text):
            told = Metric(family.name, family.documentation, family.type)
            kept = families.setdefault(family.name, told)
            for sample in family.samples:
                labels = sample.labels | {"replica": replica}
                kept.add_sample(sample.name, labels, sample.value)
    registry = CollectorRegistry()
    registry.register(_Collected(families.values()))
    return generate_latest(registry)
