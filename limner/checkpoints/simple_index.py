"""Finding a file on a Python package index: the simple API, as JSON (PEP 691) or HTML (PEP 503).

Models small enough to be wheels come from the index that the machine's pip already uses, so they
arrive wherever `pip install` works: behind a mirror, a proxy or a password.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from limner.checkpoints.network import (
    DownloadError,
    RefusedError,
    host_of,
    persist,
    read_page,
    with_credentials,
)

ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
LARGEST_PAGE = 50_000_000
DELAYS = (
    0.5,
    1.0,
)  # shorter than for a file: here is where a missing network shows, so say so soon


@dataclass(frozen=True, slots=True)
class Link:
    """A file that an index offers. `sha256` is None where the index does not say."""

    filename: str
    address: str
    sha256: str | None


def index_address() -> str:
    """The index that pip uses: PIP_INDEX_URL, else pip's configuration, else pip's default.

    Raises:
        DownloadError: pip is not installed and PIP_INDEX_URL is not set.
    """
    return os.environ.get("PIP_INDEX_URL") or _configured_address() or _default_address()


def _configured_address() -> str:
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    # pip fails both when it is missing and when nothing is configured: either way, no address.
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _default_address() -> str:
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        raise DownloadError(
            "pip is not installed, so no package index is known: set PIP_INDEX_URL to one"
        ) from None
    return str(PyPI.simple_url)


def find_file(distribution: str, filename: str, delays: Sequence[float] = DELAYS) -> Link:
    """Where the index keeps a file of a distribution.

    Raises:
        DownloadError: the index cannot be reached or does not have the file.
    """
    index = index_address().rstrip("/")
    page = f"{index}/{re.sub(r'[-_.]+', '-', distribution).lower()}/"
    for link in _links(page, delays):
        if link.filename == filename:
            return Link(filename, with_credentials(link.address, index), link.sha256)
    raise DownloadError(
        f"the package index at {host_of(index)} has no {filename}: set PIP_INDEX_URL to another"
    )


def _links(page: str, delays: Sequence[float]) -> list[Link]:
    address = page + "index.html" if urlsplit(page).scheme == "file" else page
    try:
        body, kind, final = persist(
            lambda: read_page(address, {"Accept": ACCEPT}, LARGEST_PAGE), address, delays
        )
    except RefusedError as error:
        raise DownloadError(
            f"{error}: set PIP_INDEX_URL to a package index that has it, or give the path of a "
            "model that is already on this machine"
        ) from None
    return parse_links(body, kind, final)


def parse_links(body: bytes, kind: str, address: str) -> list[Link]:
    """The files on a page of the simple API.

    Args:
        body: the page.
        kind: its content type; a mirror may answer HTML though JSON was asked for.
        address: where it was read, which relative links start from.

    Raises:
        DownloadError: the page is JSON of another form.
    """
    if not kind.endswith("json"):
        parser = _Anchors()
        parser.feed(body.decode("utf-8", errors="replace"))
        return [_html_link(urljoin(address, target)) for target in parser.targets]
    try:
        return [_json_link(file, address) for file in json.loads(body)["files"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DownloadError(
            f"{host_of(address)} sent JSON that is no index page ({error!r}): check PIP_INDEX_URL"
        ) from None


def _json_link(file: Any, address: str) -> Link:
    return Link(file["filename"], urljoin(address, file["url"]), file["hashes"].get("sha256"))


def _html_link(target: str) -> Link:
    address, fragment = urldefrag(target)
    filename = unquote(urlsplit(address).path.rpartition("/")[2])
    name, _, digest = fragment.partition("=")
    return Link(filename, address, digest if name == "sha256" else None)


class _Anchors(HTMLParser):
    """The targets of all links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.targets += [value for name, value in attrs if tag == "a" and name == "href" and value]
