"""Tokens a second and time to first token of `limner serve`, beside llama-server if it is here.

    python -m benchmarks.serve
    python -m benchmarks.serve --llama-server /path/to/llama-server --streams 1 4 16 --requests 32
    python -m benchmarks.serve --streams 16 --seconds 300 --killed 1

Each server gets the same requests, of mixed lengths, from so many clients at once that send the
next when the last is answered; the servers take turns, each alone on the machine. Both read the
same Q8_0 file, which limner writes. With `--killed`, a client at random goes away every so many
seconds instead, for `--seconds`, and limner's rows must all be free at the end. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.comparison import contests, report, some_prompts
from limner.tokenizers import Tokenizer

GOALS = {f"tokens a second, {streams} streams, llama-server": 1.0 for streams in (1, 4, 16)}
CONTEXT = 512
PROMPTS = (8, 32, 96, 256)
ANSWERS = (16, 48, 128)


@dataclass(frozen=True)
class Request:
    """A prompt and how many tokens are to follow it."""

    prompt: list[int]
    tokens: int


@dataclass
class Result:
    """What came of the requests of one run."""

    tokens: int = 0
    seconds: float = 0
    waits: list[float] = field(default_factory=list)
    """Seconds to the first token, a request each."""

    @property
    def speed(self) -> float:
        """Tokens a second, of all streams together."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    name: str
    host: str
    port: int
    model: str


def main() -> None:
    options = parse()
    ratios: dict[str, float] = {}
    with contests(options.model, ["8 bits"]) as (found, tokenizer):
        for streams in options.streams:
            work = requests(tokenizer, options.requests * streams)
            ratios |= measure(found[0].model, work, streams, options)
    report("serve", ratios, GOALS)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--requests", type=int, default=3, help="of each client")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--llama-server", default=shutil.which("llama-server"))
    parser.add_argument("--killed", type=float, help="seconds between two clients that go away")
    parser.add_argument("--seconds", type=float, default=60, help="how long they do")
    return parser.parse_args()


def requests(tokenizer: Tokenizer, count: int) -> list[Request]:
    """Requests of mixed lengths, the same each time."""
    drawn = random.Random(0)
    texts = itertools.cycle(some_prompts(tokenizer, 64, max(PROMPTS)))
    return [
        Request(next(texts)[: drawn.choice(PROMPTS)], drawn.choice(ANSWERS)) for _ in range(count)
    ]


def measure(
    model: Path, work: Sequence[Request], streams: int, options: argparse.Namespace
) -> dict[str, float]:
    """Run the servers in turn; the ratios of ours to the other."""
    sides = {"limner": limner_server}
    if options.llama_server:
        sides["llama-server"] = llama_server
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for _ in range(1 if options.killed else options.rounds):
        for name, start in sides.items():
            with start(model, streams, options) as server:
                if options.killed:
                    asyncio.run(killed(server, work, streams, options))
                    continue
                asyncio.run(run(server, work[: 2 * streams], streams))  # to warm up
                results[name].append(asyncio.run(run(server, work, streams)))
    return {} if options.killed else compare(results, streams)


def compare(results: dict[str, list[Result]], streams: int) -> dict[str, float]:
    """Print the medians; how many times ours are the other's."""
    speeds, waits = {}, {}
    for name, found in results.items():
        speeds[name] = statistics.median(result.speed for result in found)
        every = sorted(wait for result in found for wait in result.waits)
        waits[name] = statistics.median(every)
        late = every[int(0.95 * (len(every) - 1))]
        print(
            f"{streams:4} streams  {name:14} {speeds[name]:8.1f} tokens a second, first token "
            f"after {waits[name] * 1000:7.0f} ms (95%: {late * 1000:.0f} ms)",
            flush=True,
        )
    return {
        f"{what}, {streams} streams, {name}": ratio
        for name in results
        if name != "limner"
        for what, ratio in (
            ("tokens a second", speeds["limner"] / speeds[name]),
            ("promptness", waits[name] / waits["limner"]),
        )
    }


# Clients


async def run(server: Server, work: Sequence[Request], streams: int) -> Result:
    """Let so many clients send the requests. Raises AssertionError if a stream is not whole."""
    result, left = Result(), iter(work)
    started = time.perf_counter()

    async def client() -> None:
        for request in left:
            wait, tokens = await ask(server, request)
            result.waits.append(wait)
            result.tokens += tokens

    await asyncio.gather(*(client() for _ in range(streams)))
    result.seconds = time.perf_counter() - started
    return result


async def ask(server: Server, request: Request) -> tuple[float, int]:
    """Seconds to the first token of a request, and how many came."""
    body = {
        "model": server.model, "prompt": request.prompt, "max_tokens": request.tokens,
        "temperature": 0, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    started, wait, usage = time.perf_counter(), None, None
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(head.encode() + content)
        status = await reader.readline()
        assert b" 200 " in status, f"{server.name} said {status.decode().strip()}"
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            wait = wait or time.perf_counter() - started
            usage = json.loads(line.removeprefix(b"data: ")).get("usage") or usage
    finally:
        writer.close()
    assert wait is not None, f"{server.name} gave no token"
    assert usage is not None, f"{server.name} did not end its stream"
    assert usage["completion_tokens"] == request.tokens, f"{server.name} lost tokens: {usage}"
    return wait, request.tokens


async def killed(
    server: Server, work: Sequence[Request], streams: int, options: argparse.Namespace
) -> None:
    """Let clients go away at random while others ask, and see that nothing stays taken."""
    drawn, end = random.Random(0), time.perf_counter() + options.seconds
    done, gone = 0, 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await ask(server, drawn.choice(work))
            done += 1

    clients = [asyncio.create_task(client()) for _ in range(streams)]
    while time.perf_counter() < end:
        await asyncio.sleep(options.killed)
        place = drawn.randrange(streams)
        clients[place].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await clients[place]
        gone += 1
        clients[place] = asyncio.create_task(client())
    await asyncio.gather(*clients)
    await asyncio.sleep(1)
    print(f"{server.name}: {done} answers, {gone} clients went away; {taken(server)}", flush=True)


def taken(server: Server) -> str:
    """What the server says is still taken; nothing must be."""
    if server.name != "limner":
        return "it does not say what is taken"
    connection = HTTPConnection(server.host, server.port, timeout=10)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    kinds = ("limner_answers_running{", "limner_answers_waiting{", "limner_cache_pages{")
    told = [line for line in lines if line.startswith(kinds)]
    told = [line for line in told if 'state="cached"' not in line and 'state="free"' not in line]
    assert told, "the metrics do not say what is taken"
    assert all(line.endswith(" 0.0") for line in told), told
    return "all is free again"


# Servers


@contextmanager
def limner_server(model: Path, streams: int, options: argparse.Namespace) -> Iterator[Server]:
    """Ours, with a queue for all clients."""
    words = [
        sys.executable, "-m", "limner", "serve", f"bench={model}", "port=0",
        f"context={CONTEXT}", f"waiting={max(256, streams)}", "log=off",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    with started(words, environment, subprocess.PIPE) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line.decode()
            if found := re.search(r"ready at http://([\d.]+):(\d+)", said):
                yield Server("limner", found[1], int(found[2]), "bench")
                return
        raise SystemExit(f"limner serve did not start: {said}")


@contextmanager
def llama_server(model: Path, streams: int, options: argparse.Namespace) -> Iterator[Server]:
    """llama.cpp's, with a slot for each client up to 16, as ours has rows."""
    slots, port = min(streams, 16), free_port()
    words = [
        options.llama_server, "-m", str(model), "--host", "127.0.0.1", "--port", str(port),
        "-np", str(slots), "-c", str(slots * CONTEXT), "-t", str(options.threads),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as log, started(words, dict(os.environ), log) as process:
        while not answers(port):
            if process.poll() is not None:
                log.seek(0)
                raise SystemExit(f"llama-server did not start: {log.read().decode()[-500:]}")
            time.sleep(0.1)
        yield Server("llama-server", "127.0.0.1", port, "bench")


@contextmanager
def started(
    words: Sequence[str], environment: dict[str, str], log: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, which is told to stop at the end."""
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=log,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def answers(port: int) -> bool:
    """Whether a server on this machine says that it is well."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
