"""Servers that are measured: ours, and llama.cpp's where `make bench-peers` has built it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO

from benchmarks.sides import PEERS

#: The longest prompt and answer of what is asked.
CONTEXT = 512
#: Answers that are computed side by side, in either server.
ROWS = 16


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    name: str
    host: str
    port: int
    model: str
    process: int

    def get(self, path: str) -> str:
        """The body of a reply."""
        connection = HTTPConnection(self.host, self.port, timeout=10)
        connection.request("GET", path)
        body = connection.getresponse().read().decode()
        connection.close()
        return body

    @property
    def memory(self) -> int:
        """Megabytes that it holds."""
        status = Path(f"/proc/{self.process}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found, "Linux says how much memory a process holds"
        return int(found[1]) // 1024

    def taken(self) -> list[str]:
        """Measurements of ours that say that something is still taken; nothing may be."""
        kinds = ("limner_answers_running{", "limner_answers_waiting{", "limner_cache_pages{")
        told = [line for line in self.get("/metrics").splitlines() if line.startswith(kinds)]
        told = [
            line for line in told if 'state="cached"' not in line and 'state="free"' not in line
        ]
        assert told, "the metrics do not say what is taken"
        return [line for line in told if not line.endswith(" 0.0")]


def find_llama_server() -> str | None:
    """The program, on the path or where `make bench-peers` puts it."""
    return shutil.which("llama-server") or shutil.which(PEERS / "bin" / "llama-server")


@contextmanager
def limner_server(
    model: Path, streams: int, threads: int, settings: Sequence[str] = ()
) -> Iterator[Server]:
    """Ours, with a queue for all clients."""
    words = [
        sys.executable, "-m", "limner", "serve", f"bench={model}", "port=0",
        f"context={CONTEXT}", f"waiting={streams + 256}", "log=off", *settings,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with _started(words, environment, subprocess.PIPE) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line.decode()
            if found := re.search(r"ready at http://([\d.]+):(\d+)", said):
                yield Server("limner", found[1], int(found[2]), "bench", process.pid)
                return
        raise SystemExit(f"limner serve did not start: {said}")


@contextmanager
def llama_server(program: str, model: Path, streams: int, threads: int) -> Iterator[Server]:
    """llama.cpp's, with a slot for each client as far as ours has rows."""
    slots, port = min(streams, ROWS), free_port()
    words = [
        program, "-m", str(model), "--host", "127.0.0.1", "--port", str(port),
        "-np", str(slots), "-c", str(slots * CONTEXT), "-t", str(threads),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as log, _started(words, dict(os.environ), log) as process:
        while not _is_well(port):
            if process.poll() is not None:
                log.seek(0)
                raise SystemExit(f"llama-server did not start: {log.read().decode()[-500:]}")
            time.sleep(0.1)
        yield Server("llama-server", "127.0.0.1", port, "bench", process.pid)


@contextmanager
def _started(
    words: Sequence[str], environment: dict[str, str], log: int | IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, which is told to stop at the end."""
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _is_well(port: int) -> bool:
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
