"""The event log of a run: one JSON object a line, which the progress bar and the lab read alike."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from limner.data.files import write_whole

LOG = "metrics.jsonl"
Event = dict[str, Any]
#: Told of each event as it happens.
Listener = Callable[[Event], None]


class EventLog:
    """Appends events to a file and tells listeners."""

    def __init__(self, path: Path, listeners: tuple[Listener, ...] = ()) -> None:
        self.path, self.listeners = path, listeners

    def tell(self, kind: str, **fields: Any) -> None:
        """Something happened."""
        event = {"event": kind, **fields}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        for listener in self.listeners:
            listener(event)

    def forget_after(self, step: int) -> None:
        """Take out the events of later steps, which a run resumed at `step` makes again.

        A last line that a kill cut off goes too.
        """
        if not self.path.exists():
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
