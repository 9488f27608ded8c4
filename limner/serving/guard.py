"""What happens around every request: who may ask, an id, a line in the log, a count."""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from limner.serving.account import Account
from limner.serving.errors import ApiError, error_body
from limner.serving.keys import Key, KeyStore
from limner.serving.metrics import Metrics
from limner.serving.rates import Rates
from limner.serving.request_log import RequestLog

#: For load balancers, which have no key, and the web page, where one is typed in; they tell nothing
#: but whether the server is up.
OPEN_PATHS = frozenset({"/health", "/ready", "/"})
OPEN_FOLDER = "/assets/"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """The outermost layer of the application.

    Args:
        application: what it guards.
        keys: whose holders may ask; None lets everybody in.
        hosts: values of the Host header that are answered; None answers all. On loopback they keep
            out a web page whose name was made to point here (DNS rebinding).
        metrics: counts requests.
        log: writes a line for each request.
        most: requests answered side by side; further ones get 503. None: as many as come.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        keys: KeyStore | None,
        hosts: Collection[str] | None,
        metrics: Metrics,
        log: RequestLog | None = None,
        most: int | None = None,
    ) -> None:
        self.application, self.keys, self.hosts, self.metrics = application, keys, hosts, metrics
        self.log, self.most = log or RequestLog(), most
        self._rates, self._open = Rates(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or say why not."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        record = _Record(scope, send)
        heard = self.log.listen(receive, record.send)
        self._open += 1
        try:
            self._admit(scope, record.account)
            await self.application(scope, heard.receive, heard.send)
        except ApiError as error:
            body = error_body(scope["path"], error, record.id)
            response = JSONResponse(body, error.status, error.headers)
            await response(scope, receive, record.send)
        finally:
            self._open -= 1
            self.log.write(record.facts() | heard.texts())
            record.count(self.metrics)

    def _admit(self, scope: Scope, account: Account) -> None:
        """Find out whose request it is. Raises ApiError: 401, 421, 429 or 503."""
        headers = Headers(scope=scope)
        if self.hosts is not None and _name(headers.get("host", "")) not in self.hosts:
            raise ApiError(
                421, "this server answers to its own address only, such as http://127.0.0.1"
            )
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDER):
            return
        if self.keys is not None:
            account.key = _owner(self.keys, headers)
            account.allowance = self._rates.of(account.key)
            account.allowance.begin()
        if self.most is not None and self._open > self.most:
            raise ApiError(
                503, f"{self.most} requests are being answered, which is all this server takes",
                kind="server_error", code="overloaded", headers={"retry-after": "1"},
            )  # fmt: skip


def _owner(keys: KeyStore, headers: Headers) -> Key:
    """Whose key was given, as OpenAI's clients or as Anthropic's send it. Raises ApiError: 401."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        given = headers.get("x-api-key", "")
    owner = keys.find(given.strip())
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
        self.account = Account()
        scope.setdefault("state", {}).update(request_id=self.id, account=self.account)

    async def send(self, message: Message) -> None:
        """Pass a message on; the response's first one gets the request's id and what is left."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            # the second is what Anthropic's clients look for
            headers["x-request-id"] = headers["request-id"] = self.id
            allowance = self.account.allowance
            for name, value in allowance.headers().items() if allowance else ():
                headers[name] = value
        await self._send(message)

    def facts(self) -> dict[str, object]:
        """What the log tells of the request: never its text, nor the answer's."""
        key = self.account.key
        return {
            "request": self.id,
            "method": self.scope["method"],
            "path": self.scope["path"],
            "status": self.status,
            "seconds": round(time.perf_counter() - self.started, 4),
            "key": None if key is None else key.name,
        } | self.account.facts()

    def count(self, metrics: Metrics) -> None:
        """The request is over."""
        # the path as the application declares it: a stranger cannot fill the metrics with paths
        route = getattr(self.scope.get("route"), "path", "other")
        metrics.requests.labels(route, str(self.status), self.account.model or "").inc()


def _name(host: str) -> str:
    """A host without its port."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
