"""Opening addresses, with failures sorted into those worth another try and those that are final."""

import base64
import http.client
import logging
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

log = logging.getLogger(__name__)

TIMEOUT = 30  # seconds without a byte
DELAYS = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try
BUSY = {408, 429, 500, 502, 503, 504}

# What a connection that broke raises; all of them can succeed a second later.
TRANSIENT = (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)

Result = TypeVar("Result")


class DownloadError(OSError):
    """Something could not be fetched. The message names the host, the reason and a way out."""


def open_url(address: str, headers: Mapping[str, str]) -> Any:
    """A response to read from; a name and password in the address are sent as basic authentication.

    The system's certificates and proxy settings apply.

    Raises:
        DownloadError: the host refused for good.
        ConnectionError, TimeoutError: it may answer later.
    """
    plain, authorization = _split_credentials(address)
    request = Request(plain, headers={"User-Agent": "limner", **headers})
    if authorization:
        request.add_unredirected_header("Authorization", authorization)
    try:
        return urlopen(request, timeout=TIMEOUT)
    except HTTPError as error:
        with error:
            answer = f"{host_of(address)} answered {error.code} {error.reason} for {_file(plain)}"
        if error.code in BUSY:
            raise ConnectionError(answer) from None
        raise RefusedError(error.code, answer) from None
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"the certificate of {host_of(address)} is not trusted ({error.reason}): "
                "set SSL_CERT_FILE to your organisation's certificates"
            ) from None
        raise ConnectionError(str(error.reason)) from None


class RefusedError(DownloadError):
    """An HTTP answer that trying again will not change."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def persist(
    act: Callable[[], Result],
    address: str,
    delays: Sequence[float] = DELAYS,
    progressed: Callable[[], bool] = lambda: False,
) -> Result:
    """Call `act` until a broken connection no longer stops it.

    Args:
        act: raises one of `TRANSIENT` if it may be tried again.
        address: what it fetches, for the message.
        delays: seconds to wait before each further try.
        progressed: whether the last try got further than any before; then the count starts anew.

    Raises:
        DownloadError: every try failed.
    """
    failures = 0
    while True:
        try:
            return act()
        except TRANSIENT as error:
            failures = 1 if progressed() else failures + 1
            if failures > len(delays):
                raise DownloadError(_unreachable(address, error)) from error
            log.info("%s: %s; trying again", host_of(address), error)
            time.sleep(delays[failures - 1])


def _unreachable(address: str, error: BaseException) -> str:
    return (
        f"cannot fetch {_file(address)} from {host_of(address)} ({error}): check the network, or "
        "give the path of a model that is already on this machine"
    )


def host_of(address: str) -> str:
    """The host and port of an address, without a password, for messages."""
    return urlsplit(address).netloc.rpartition("@")[2] or address


def _file(address: str) -> str:
    return urlsplit(address).path.rstrip("/").rpartition("/")[2]


def with_credentials(address: str, source: str) -> str:
    """`address` with the name and password in `source`, if both are at the same host."""
    target, credentials = urlsplit(address), urlsplit(source).netloc.rpartition("@")[0]
    if not credentials or target.netloc != host_of(source):
        return address
    return urlunsplit(target._replace(netloc=f"{credentials}@{target.netloc}"))


def _split_credentials(address: str) -> tuple[str, str | None]:
    parts = urlsplit(address)
    credentials, _, host = parts.netloc.rpartition("@")
    if not credentials:
        return address, None
    encoded = base64.b64encode(unquote(credentials).encode()).decode()
    return urlunsplit(parts._replace(netloc=host)), f"Basic {encoded}"


def read_page(address: str, headers: Mapping[str, str], limit: int) -> tuple[bytes, str, str]:
    """The body (at most `limit` bytes), content type and final address of a page."""
    response: IO[bytes] | Any
    with open_url(address, headers) as response:
        return response.read(limit), response.headers.get_content_type(), response.url
