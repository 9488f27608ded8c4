"""Showing a run: a live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from limner.commands.terminal import harmless, remark

#: Seconds between lines where there is no terminal.
PAUSE = 10.0
Event = dict[str, Any]


@contextmanager
def display() -> Iterator[Callable[[Event], None]]:
    """A listener for the events of a run, which writes to standard error."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(20),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield Bar(bar)


class Lines:
    """Prints the first and the last step and some between, and whatever else happens."""

    def __init__(self) -> None:
        self.steps, self.printed = 0, 0.0

    def __call__(self, event: Event) -> None:
        """Something happened."""
        if event["event"] == "start":
            self.steps = event["steps"]
        elif event["event"] != "step":
            tell(event, remark)
        elif event["step"] == self.steps or time.monotonic() - self.printed > PAUSE:
            remark(f"step {event['step']}/{self.steps}  {summary(event)}")
            self.printed = time.monotonic()


class Bar:
    """A bar with the last step's figures behind it."""

    def __init__(self, bar: Any) -> None:
        self.bar, self.task = bar, None

    def __call__(self, event: Event) -> None:
        """Something happened."""
        if event["event"] == "start":
            self.task = self.bar.add_task("", total=event["steps"], completed=event["step"])
        elif event["event"] == "step":
            self.bar.update(self.task, completed=event["step"], description=summary(event))
        else:
            tell(event, lambda line: self.bar.console.print(line, highlight=False, markup=False))


def summary(event: Event) -> str:
    """The figures of a step."""
    loss = "not finite" if event["loss"] is None else f"{event['loss']:.4f}"
    parts = [f"loss {loss}", f"rate {event['rate']:.2e}"]
    parts.append(f"{event['tokens_per_second']:,.0f} tokens/s")
    if event["peak_share"] is not None:
        parts.append(f"{event['peak_share']:.0%} of the peak")
    parts += [f"{event['memory'] / 1e9:.2f} GB", f"{duration(event['seconds_left'])} left"]
    if event["refused"]:
        parts.append(f"{event['refused']} steps refused")
    return "  ".join(parts)


def tell(event: Event, write: Callable[[str], None]) -> None:
    """What happened between steps, in lines."""
    if event["event"] == "validation":
        bits = f", {event['bits_per_byte']:.4f} bits a byte" if "bits_per_byte" in event else ""
        write(f"step {event['step']}  validation loss {event['loss']:.4f}{bits}")
    elif event["event"] == "samples":
        for sample in event["samples"]:
            write(harmless(f"  {sample['prompt']}|{sample['text']}"))
    elif event["event"] == "early stop":
        write(f"step {event['step']}  no better since {event['best']:.4f}: stopping early")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, the two largest."""
    hours, minutes = int(seconds // 3600), int(seconds // 60 % 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {int(seconds % 60)} s" if minutes else f"{int(seconds)} s"
