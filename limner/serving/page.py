"""The web page at `/`: files that were built beforehand, with nothing from anywhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from limner.serving.build_page import BUILT, COMMAND, NEEDED, STAMP

#: The page runs its own scripts, looks as its own style sheets say, and talks to this server only:
#: whatever a model may write, no browser asks another server for it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}

#: Named here, since what the standard library knows depends on the machine.
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: Asked for anew each time, and sent only if it changed.
ANEW = "no-cache"
#: The names of these files change with their content.
FOR_EVER = "public, max-age=31536000, immutable"

UNBUILT = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>limner</title>
<h1>limner</h1>
<p>The server runs, and its API is at <code>/v1</code>; only this page was not built.
<p>Build it with <code>{COMMAND}</code> in a checkout of limner, and start the server again.
It takes {NEEDED}, or fetches one from the package index.
</html>
"""


@dataclass(frozen=True)
class PageFile:
    """A file as it is sent."""

    content: bytes
    kind: str
    caching: str

    @property
    def tag(self) -> str:
        """What names this content (ETag)."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    def response(self, known: str) -> Response:
        """The file, or that it is what the browser has, which sent the tags it knows."""
        headers = HEADERS | {"etag": self.tag, "cache-control": self.caching}
        tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        if self.tag in tags or "*" in tags:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers | {"content-type": self.kind})


def read_page(built: Path = BUILT) -> Mapping[str, PageFile]:
    """The files by what follows the server's address; of a page that was not built, how to."""
    if not (built / STAMP).exists():
        return {"/": PageFile(UNBUILT.encode(), TYPES[".html"], "no-store")}
    found = {"/": PageFile((built / "index.html").read_bytes(), TYPES[".html"], ANEW)}
    for path in (built / "assets").iterdir():
        found[f"/assets/{path.name}"] = PageFile(path.read_bytes(), TYPES[path.suffix], FOR_EVER)
    return found


def add_page(application: FastAPI, built: Path = BUILT) -> None:
    """Let the application answer with the page.

    All files are read now: what is asked for later is looked up, and never reaches the disk.
    """
    files = read_page(built)

    async def page(request: Request) -> Response:
        file = files.get(request.url.path)
        if file is None:
            raise HTTPException(404)
        return file.response(request.headers.get("if-none-match", ""))

    for path in ("/", "/assets/{name}"):
        application.add_api_route(path, page, methods=["GET", "HEAD"], include_in_schema=False)
