"""Stopping a run without losing anything, and never running two in one folder."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """ValueError if another run is at work in the folder; a killed one does not count."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another run is at work in '{folder}': wait for it, or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first Ctrl-C or SIGTERM; the second acts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.getsignal(kind) for kind in kinds}

    def first(_: int, __: FrameType | None) -> None:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        stop()

    for kind in kinds:
        signal.signal(kind, first)
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
