"""What happens around every request: who may ask, an id, a line in the log, a count."""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limner.serving.errors import ApiError
from limner.serving.keys import KeyStore
from limner.serving.metrics import Metrics

#: A line of JSON for each request: never its text, nor the answer's.
requests_log = logging.getLogger("limner.serving.requests")

#: For load balancers, which have no key; they tell nothing but whether the server is up.
OPEN_PATHS = frozenset({"/health", "/ready"})


class Guard:
    """The outermost layer of the application.

    Args:
        application: what it guards.
        keys: whose holders may ask; None lets everybody in.
        hosts: values of the Host header that are answered; None answers all. On loopback they keep
            out a web page whose name was made to point here (DNS rebinding).
        metrics: counts requests.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        keys: KeyStore | None,
        hosts: Collection[str] | None,
        metrics: Metrics,
    ) -> None:
        self.application, self.keys, self.hosts, self.metrics = application, keys, hosts, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        record = _Record(scope, send)
        try:
            record.key = self._admit(scope)
            await self.application(scope, receive, record.send)
        except ApiError as error:
            response = JSONResponse(error.body, error.status, error.headers)
            await response(scope, receive, record.send)
        finally:
            record.write(self.metrics)

    def _admit(self, scope: Scope) -> str | None:
        """The name of the key that was given, if one is needed. Raises ApiError: 401 or 421."""
        headers = Headers(scope=scope)
        if self.hosts is not None and _name(headers.get("host", "")) not in self.hosts:
            raise ApiError(
                421, "this server answers to its own address only, such as http://127.0.0.1"
            )
        if self.keys is None or scope["path"] in OPEN_PATHS:
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        owner = self.keys.owner(given.strip()) if scheme.lower() == "bearer" else None
        if owner is None:
            raise ApiError(
                401, "a valid API key is needed: send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key", headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        return owner


class _Record:
    """One request as it goes into the log and the metrics."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope, self._send = scope, send
        self.id, self.started = f"req_{secrets.token_hex(12)}", time.perf_counter()
        self.status = 500
        self.key: str | None = None
        scope.setdefault("state", {})["request_id"] = self.id

    async def send(self, message: Message) -> None:
        """Pass a message on; the response's first one gets the request's id."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self.id
        await self._send(message)

    def write(self, metrics: Metrics) -> None:
        """The request is over."""
        facts: dict[str, Any] = {
            "request": self.id,
            "method": self.scope["method"],
            "path": self.scope["path"],
            "status": self.status,
            "seconds": round(time.perf_counter() - self.started, 4),
            "key": self.key,
        }
        requests_log.info(json.dumps(facts))
        # the path as the application declares it: a stranger cannot fill the metrics with paths
        route = getattr(self.scope.get("route"), "path", "other")
        metrics.requests.labels(route, str(self.status)).inc()


def _name(host: str) -> str:
    """A host without its port."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
