"""Tokens a second and time to first token of `limner serve`, beside llama-server if it is here.

    python -m benchmarks.serve
    python -m benchmarks.serve --streams 1 4 16 --seconds 60 --rounds 3
    python -m benchmarks.serve --soak --seconds 180 --killed 1

Each server gets the same requests, of mixed lengths, from so many clients at once that send the
next when the last is answered, for so many seconds; the servers take turns, each alone on the
machine. Both read the same Q8_0 file, which limner writes. `make bench-peers` builds llama-server.

With `--soak` ours runs alone, once for all numbers of streams. Every stream must be whole and must
be what the same request is answered when nobody else asks; memory may not grow, and at the end all
pages of the cache must be free, also with `--killed`, which lets a client at random go away every
so many seconds. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.clients import Request, Result, alone, load, requests
from benchmarks.comparison import contests, report
from benchmarks.servers import Server, find_llama_server, limner_server, llama_server

GOALS = {f"tokens a second, {streams} streams, llama-server": 1.0 for streams in (1, 4, 16)}
#: Parts of a soak between which memory is looked at; the first warms up.
PARTS = 6
#: How many times as much memory a server may hold at the end of a soak as after its first part.
GROWTH = 1.05

Start = Callable[[Path, int, int], AbstractContextManager[Server]]


def main() -> None:
    options = parse()
    ratios: dict[str, float] = {}
    with contests(options.model, ["8 bits"]) as (found, tokenizer):
        work = requests(tokenizer, options.different)
        if options.soak:
            soak(found[0].model, work, options)
            return
        for streams in options.streams:
            ratios |= measure(found[0].model, work, streams, options)
    report("serve", ratios, GOALS)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=30, help="of one server's turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--different", type=int, default=48, help="requests, asked in turns")
    parser.add_argument("--activation-bits", type=int, default=8, help="llama.cpp has 8")
    parser.add_argument("--llama-server", default=find_llama_server())
    parser.add_argument("--soak", action="store_true", help="ours alone, and look for mistakes")
    parser.add_argument("--killed", type=float, help="seconds between two clients that go away")
    return parser.parse_args()


# Beside the peer


def measure(
    model: Path, work: Sequence[Request], streams: int, options: argparse.Namespace
) -> dict[str, float]:
    """Run the servers in turn; the ratios of ours to the other."""
    settings = (f"activation_bits={options.activation_bits}",)
    sides: dict[str, Start] = {"limner": functools.partial(limner_server, settings=settings)}
    if options.llama_server:
        sides["llama-server"] = functools.partial(llama_server, options.llama_server)
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for _ in range(options.rounds):
        for name, start in sides.items():
            with start(model, streams, options.threads) as server:
                asyncio.run(load(server, itertools.cycle(work), streams, seconds=2))  # to warm up
                turn = load(server, itertools.cycle(work), streams, seconds=options.seconds)
                results[name].append(asyncio.run(turn))
    return compare(results, streams)


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
        f"{what}, {streams} streams, {name}": round(ratio, 3)
        for name in results
        if name != "limner"
        for what, ratio in (
            ("tokens a second", speeds["limner"] / speeds[name]),
            ("promptness", waits[name] / waits["limner"]),
        )
    }


# For a long time


def soak(model: Path, work: Sequence[Request], options: argparse.Namespace) -> None:
    """Load one server with all numbers of streams. Raises AssertionError for any mistake."""
    settings = (f"activation_bits={options.activation_bits}",)
    with limner_server(model, max(options.streams), options.threads, settings) as server:
        expected = asyncio.run(alone(server, work))
        for streams in options.streams:
            results, sizes = soak_with(server, work, streams, options, expected)
            free(server)
            answers, gone = (sum(getattr(r, name) for r in results) for name in ("answers", "gone"))
            print(
                f"{streams:4} streams  {answers} answers, each as it is alone; {gone} clients went "
                f"away; all is free again; memory after each part: {sizes} MB",
                flush=True,
            )
            assert sizes[-1] <= sizes[0] * GROWTH, f"memory grows: {sizes} MB"


def soak_with(
    server: Server,
    work: Sequence[Request],
    streams: int,
    options: argparse.Namespace,
    expected: dict[Request, str],
) -> tuple[list[Result], list[int]]:
    """What came of each part, and the memory held after it."""
    results, sizes, turns = [], [], itertools.cycle(work)
    for _ in range(PARTS):
        part = load(
            server, turns, streams,
            seconds=options.seconds / PARTS, expected=expected, killed=options.killed,
        )  # fmt: skip
        results.append(asyncio.run(part))
        sizes.append(server.memory)
    return results, sizes


def free(server: Server) -> None:
    """See that nothing stays taken: what was killed is free before the next step."""
    end = time.perf_counter() + 5
    while taken := server.taken():
        assert time.perf_counter() < end, f"still taken: {taken}"
        time.sleep(0.05)


if __name__ == "__main__":
    main()
