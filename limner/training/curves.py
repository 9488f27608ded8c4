"""A picture of a run's curves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from limner.training.events import Event, read_events

CURVES = "curves.png"
#: Losses are drawn as they are, faintly, and as means over so large a share of the run's steps.
SMOOTHING = 0.02
logger = logging.getLogger(__name__)


def draw_curves(log: Path, picture: Path) -> None:
    """Draw the loss, rate, gradient norm and speed that `log` tells of; needs matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        logger.info("no %s: pip install 'limner[train]' brings matplotlib, which draws it", picture)
        return
    events = list(read_events(log))
    steps = [event for event in events if event["event"] == "step"]
    if not steps:
        return
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(3, 2))
    left, right = halves
    _draw_losses(left.subplots(), steps, [e for e in events if e["event"] == "validation"])
    names = {"rate": "learning rate", "norm": "gradient norm", "tokens_per_second": "tokens/s"}
    for panel, (name, title) in zip(right.subplots(3, sharex=True), names.items(), strict=True):
        panel.plot(*_curve(steps, name), linewidth=0.8)
        panel.set_ylabel(title)
        panel.set_ylim(bottom=0)
    panel.set_xlabel("step")
    figure.savefig(picture, dpi=75)


def _draw_losses(panel: Any, steps: Sequence[Event], validations: Sequence[Event]) -> None:
    places, losses = _curve(steps, "loss")
    panel.plot(places, losses, color="C0", alpha=0.3, linewidth=0.8)
    panel.plot(places, smooth(losses), color="C0", label="training")
    if validations:
        panel.plot(*_curve(validations, "loss"), "o-", color="C1", label="validation")
    panel.set(xlabel="step", ylabel="loss")
    panel.grid(alpha=0.3)
    panel.legend()


def _curve(events: Sequence[Event], name: str) -> tuple[list[int], Any]:
    """Steps and values; a value that was not finite is a gap."""
    values = [numpy.nan if event[name] is None else event[name] for event in events]
    return [event["step"] for event in events], numpy.array(values, float)


def smooth(values: Any) -> Any:
    """Each value as the mean of the last ones, of at most `SMOOTHING` of all; gaps are skipped.

    In the beginning, where curves fall steeply, of a fifth of those so far.
    """
    known = numpy.isfinite(values)
    sums = numpy.cumsum([0, *numpy.where(known, values, 0)])
    counts = numpy.cumsum([0, *known])
    last = numpy.arange(1, len(values) + 1)
    first = last - numpy.minimum(1 + last // 5, max(round(SMOOTHING * len(values)), 1))
    found = counts[last] - counts[first]
    return (sums[last] - sums[first]) / numpy.where(found, found, numpy.nan)
