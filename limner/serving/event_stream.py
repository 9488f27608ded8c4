"""Server-sent events, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: Proxies hold streams back to compress or to buffer them unless they are told not to.
HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


@asynccontextmanager
async def cancelled_on_disconnect(
    receive: Receive, cancel: Callable[[], object]
) -> AsyncIterator[None]:
    """Call `cancel` when the client goes away, and when the block is left for whatever reason."""
    watcher = asyncio.create_task(_wait_for_disconnect(receive, cancel))
    try:
        yield
    finally:
        watcher.cancel()
        cancel()


async def _wait_for_disconnect(receive: Receive, cancel: Callable[[], object]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    cancel()


def event(data: Any, *, named: bool = False) -> bytes:
    """One event; `named` says its type in a line of its own."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {text}\n\n".encode()


class EventStream(Response):
    """A response of server-sent events.

    Args:
        parts: the JSON of each event.
        cancel: called when the client goes away before the end.
        named: the events have names, and the last of them is the end; otherwise `[DONE]` is.
    """

    media_type = "text/event-stream"

    def __init__(
        self, parts: AsyncIterator[Any], cancel: Callable[[], object], *, named: bool = False
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self.parts, self.cancel, self.named = parts, cancel, named

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come."""
        async with cancelled_on_disconnect(receive, self.cancel):
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            async for part in self.parts:
                body = event(part, named=self.named)
                await send({"type": "http.response.body", "body": body, "more_body": True})
            last = b"" if self.named else b"data: [DONE]\n\n"
            await send({"type": "http.response.body", "body": last})
