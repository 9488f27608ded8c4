"""TensorBoard's event files, beside our own log."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from limner.training.events import Event, read_events

#: Where each figure of a step stands in TensorBoard.
CHARTS = {
    "rate": "step/rate",
    "norm": "step/norm",
    "tokens_per_second": "speed/tokens_per_second",
    "peak_share": "speed/peak_share",
    "memory": "speed/memory",
}
#: Figures of an event that are no curves.
LEFT_OUT = {"step", "tokens", "refused", "seconds_left"}


class EventFiles:
    """A listener that writes every curve of a run, and its samples, for TensorBoard.

    A run that goes on writes them anew from its `log`, since a kill takes what was not yet on disk.

    Raises ValueError if TensorBoard is not installed.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, log
        self.make_writer = _writer()
        self.writer: Any = None

    def __call__(self, event: Event) -> None:
        """Something happened."""
        if event["event"] == "start":
            self._begin()
        elif event["event"] in ("step", "validation"):
            self._add_curves(event)
        elif event["event"] == "samples":
            text = "\n\n".join(f"**{each['prompt']}**{each['text']}" for each in event["samples"])
            self.writer.add_text("samples", text, event["step"])
        elif event["event"] == "end":
            self.writer.close()

    def _begin(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.writer = self.make_writer(str(self.folder))
        for event in read_events(self.log):
            if event["event"] in ("step", "validation", "samples"):
                self(event)

    def _add_curves(self, event: Event) -> None:
        kind = "train" if event["event"] == "step" else "validation"
        for name, value in event.items():
            if name not in LEFT_OUT and isinstance(value, int | float):
                self.writer.add_scalar(CHARTS.get(name, f"{name}/{kind}"), value, event["step"])


def _writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ValueError(
            f"tensorboard=true needs {error.name}: pip install 'limner[track]' brings it"
        ) from None
    return SummaryWriter
