"""One address for many replicas: requests come in here and Ray Serve takes them further.

Keys, limits, logs and the page stay in this process, as they are without a cluster; each replica
runs the whole application (`limner.serving.cluster_replica`). Ray's own HTTP proxies, which know no
keys, are not started.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fastapi import FastAPI

from limner.data.extra import import_ray
from limner.serving.administration import LoadAdapterRequest
from limner.serving.application import ROUTES, create_application
from limner.serving.cluster_measurements import merged
from limner.serving.cluster_replica import Attached, Forwarded, Replica
from limner.serving.cluster_requests import forwarding
from limner.serving.errors import ApiError
from limner.serving.keys import KeyStore
from limner.serving.response_store import ResponseStore
from limner.serving.server import Loading, Server, Serving

#: A replica's own queue says when it is full; Ray's limit must not come before.
MOST_ONGOING = 10_000
#: Seconds in which a replica should end by itself.
STOP_SECONDS = 2
#: Seconds between two looks at whether the replicas have loaded.
LOOK = 0.2


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
        responses: ResponseStore | None = None,
        placement: Placement | None = None,
    ) -> None:
        serve = import_ray("ray.serve", "a cluster")
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self._serve, self.placement = serve, placement or Placement()
        self.name, self._deployed = f"limner-{secrets.token_hex(4)}", False
        self.attached = Attached()
        super().__init__(loading, settings, store, responses)

    def _application(self, responses: ResponseStore | None) -> FastAPI:
        application = create_application(
            self.registry,
            self.metrics,
            lifespan=self._lifespan,
            limits=self.settings.limits,
            store=responses,
            routes=[forwarding(route) for route in ROUTES],
        )
        application.state.cluster = self
        return application

    async def _open_models(self) -> None:
        with signals_as_they_are():
            await asyncio.to_thread(self._join)
        if not self.uvicorn.should_exit:
            self.handle = await asyncio.to_thread(self._deploy)
        while not self.uvicorn.should_exit:
            if await asyncio.to_thread(self._have_loaded):
                # the way there takes seconds to make, too
                self.attached = Attached(dict.fromkeys(await self.handle.begin.remote()))
                break
            await asyncio.sleep(LOOK)

    async def _stop(self) -> None:
        await super()._stop()
        await asyncio.to_thread(self._leave)

    def _join(self) -> None:
        """Join the cluster, or start one."""
        import ray

        try:
            ray.init(include_dashboard=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises just that
            raise OSError(f"Ray did not start, or did not answer: {_last_line(error)}") from error

    def _deploy(self) -> Any:
        """Begin to start the replicas. Raises ValueError if they do not fit."""
        import ray
        from ray.serve.config import RequestRouterConfig

        from limner.serving.cluster_routing import PrefixRouter

        placed = shares(self.placement, ray.cluster_resources())
        quiet = {"enable_access_log": False, "log_level": "WARNING"}
        self._serve.start(proxy_location="Disabled", logging_config=quiet)
        deployment = self._serve.deployment(
            Replica,
            num_replicas=placed.replicas,
            max_ongoing_requests=MOST_ONGOING,
            # when the replicas are told to go, this process has let all answers end
            graceful_shutdown_timeout_s=STOP_SECONDS,
            graceful_shutdown_wait_loop_s=LOOK,
            ray_actor_options={"num_cpus": placed.cpus, "num_gpus": placed.gpus},
            request_router_config=RequestRouterConfig(request_router_class=PrefixRouter),
            logging_config=quiet,
        )
        bound = deployment.bind(self.loading, self.settings.limits)
        self._deployed = True
        target = self._serve.RunTarget(target=bound, name=self.name, route_prefix=None)
        return self._serve.run_many([target], wait_for_applications_running=False)[0]

    def _have_loaded(self) -> bool:
        """Whether the replicas have. Raises ValueError if they cannot."""
        found = self._serve.status().applications[self.name]
        if found.status == "DEPLOY_FAILED":
            raise ValueError(f"the replicas did not start: {_last_line(found.message)}")
        return bool(found.status == "RUNNING")

    def _leave(self) -> None:
        import ray

        if self._deployed:
            self._serve.delete(self.name)
        ray.shutdown()

    def ask(self, forwarded: Forwarded) -> Any:
        """The answer of a replica: an asynchronous iterator over lists of pieces."""
        return self.handle.options(stream=True).answer.remote(forwarded)

    async def attach(self, adapters: Mapping[str, LoadAdapterRequest | None]) -> None:
        """Let all replicas serve these adapters. Raises ApiError, changing none, if one cannot."""
        errors = await self._tell(adapters)
        if errors:
            await self._tell(self.attached.adapters)
            raise errors[0]
        self.attached = replace(self.attached, adapters=adapters)

    async def detach(self, adapters: Mapping[str, LoadAdapterRequest | None]) -> None:
        """Let all replicas serve no other adapters than these."""
        await self._tell(adapters)
        self.attached = replace(self.attached, adapters=adapters)

    async def _tell(self, adapters: Mapping[str, LoadAdapterRequest | None]) -> list[ApiError]:
        """What is wrong with adapters that replicas cannot load.

        A replica that fails is started again, and hears of them with its first request.
        """
        wanted = Attached(adapters, self.attached.number + 1)
        told = self.handle.broadcast("follow", wanted)
        found = await told.results_async(return_exceptions=True)
        self.attached = replace(self.attached, number=wanted.number)
        return [error for errors in found if isinstance(errors, list) for error in errors]

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


def _last_line(error: object) -> str:
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
