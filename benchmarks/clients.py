"""Clients of a server under load: what they ask, and whether each gets its own answer, whole."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.comparison import some_prompts
from benchmarks.servers import Server
from limner.tokenizers import Tokenizer

PROMPTS = (8, 32, 96, 256)
ANSWERS = (16, 48, 128)


@dataclass(frozen=True)
class Request:
    """A prompt, and how many tokens are to follow it, the most probable ones."""

    prompt: tuple[int, ...]
    tokens: int


@dataclass
class Result:
    """What came of the requests of one run."""

    answers: int = 0
    tokens: int = 0
    seconds: float = 0
    gone: int = 0
    """Clients that went away in the middle."""
    waits: list[float] = field(default_factory=list)
    """Seconds to the first token, a request each."""

    @property
    def speed(self) -> float:
        """Tokens a second, of all streams together."""
        return self.tokens / self.seconds


def requests(tokenizer: Tokenizer, count: int) -> list[Request]:
    """Requests of mixed lengths, the same each time."""
    drawn = random.Random(0)
    texts = itertools.cycle(some_prompts(tokenizer, 64, max(PROMPTS)))
    return [
        Request(tuple(next(texts)[: drawn.choice(PROMPTS)]), drawn.choice(ANSWERS))
        for _ in range(count)
    ]


async def ask(server: Server, request: Request) -> tuple[float, str]:
    """Seconds to the first token of a request, and the text that came.

    Raises AssertionError if the stream is not whole, or not all of one answer.
    """
    started, wait = time.perf_counter(), None
    text, names, ends, usage = "", set(), 0, None
    async with contextlib.aclosing(_events(server, request)) as events:
        async for event in events:
            wait = wait or time.perf_counter() - started
            names.add(event["id"])
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                text += choice["text"]
                ends += choice["finish_reason"] is not None
    assert wait is not None, f"{server.name} gave no token"
    assert len(names) == 1, f"{server.name} mixed answers: {names}"
    assert ends == 1, f"{server.name} ended an answer {ends} times"
    assert usage is not None, f"{server.name} did not count the tokens"
    assert usage["completion_tokens"] == request.tokens, f"{server.name} lost tokens: {usage}"
    return wait, text


async def _events(server: Server, request: Request) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream. Raises AssertionError if it is not answered, or has no end."""
    body = {
        "model": server.model, "prompt": list(request.prompt), "max_tokens": request.tokens,
        "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(head.encode() + content)
        status = await reader.readline()
        assert b" 200 " in status, f"{server.name} said {status.decode().strip()}"
        done = 0
        async for line in reader:
            if line.startswith(b"data: {"):
                assert not done, f"{server.name} went on after the end"
                yield json.loads(line.removeprefix(b"data: "))
            done += line.startswith(b"data: [DONE]")
        assert done == 1, f"{server.name} ended a stream {done} times"
    finally:
        writer.close()


async def alone(server: Server, work: Sequence[Request]) -> dict[Request, str]:
    """What each request is answered when nobody else asks."""
    return {request: (await ask(server, request))[1] for request in work}


async def load(
    server: Server,
    work: Iterator[Request],
    streams: int,
    *,
    seconds: float,
    expected: dict[Request, str] | None = None,
    killed: float | None = None,
) -> Result:
    """Let so many clients ask, one request after another, for so long.

    With `killed`, one at random goes away every so many seconds, and another takes its place.
    Raises AssertionError for a stream that is not whole, or not as `expected`.
    """
    result, started = Result(), time.perf_counter()
    end = started + seconds

    async def client() -> None:
        while time.perf_counter() < end:
            request = next(work)
            wait, text = await ask(server, request)
            if expected is not None:
                assert text == expected[request], f"{server.name} answered otherwise: {request}"
            result.waits.append(wait)
            result.tokens += request.tokens
            result.answers += 1

    clients = [asyncio.create_task(client()) for _ in range(streams)]
    if killed is not None:
        result.gone = await _kill(clients, client, every=killed, end=end)
    await asyncio.gather(*clients)
    result.seconds = time.perf_counter() - started
    return result


async def _kill(
    clients: list[asyncio.Task[None]], client: Callable[[], Any], *, every: float, end: float
) -> int:
    """Let clients go away until the end; how many did."""
    drawn, gone = random.Random(0), 0
    while time.perf_counter() + every < end:
        await asyncio.sleep(every)
        place = drawn.randrange(len(clients))
        clients[place].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await clients[place]
        gone += 1
        clients[place] = asyncio.create_task(client())
    return gone
