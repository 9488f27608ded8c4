"""The event log of a run: one JSON object a line, which the progress bar and the lab read alike."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from limner.files import write_whole

LOG = "metrics.jsonl"
Event = dict[str, Any]
#: Told of each event as it happens.
Listener = Callable[[Event], None]


class EventLog:
    """Appends events to a file and tells listeners; one that is `silent` does neither."""

    def __init__(
        self, path: Path, listeners: tuple[Listener, ...] = (), *, silent: bool = False
    ) -> None:
        self.path, self.listeners, self.silent = path, listeners, silent

    def tell(self, kind: str, **fields: Any) -> None:
        """Something happened."""
        if self.silent:
            return
        event = {"event": kind, **fields}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        for listener in self.listeners:
            listener(event)

    def forget_after(self, step: int | None) -> None:
        """Take out the events of later steps, which a run resumed at `step` makes again; None: all.

        A last line that a kill cut off goes too.
        """
        if step is None or not self.path.exists():
            self.path.unlink(missing_ok=True)
            return
        kept = [event for event in read_events(self.path) if event.get("step", 0) <= step]
        write_whole(self.path, [(json.dumps(event) + os.linesep).encode() for event in kept])


def read_events(path: Path) -> Iterator[Event]:
    """The events of a log, without a last line that is not whole."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return
