"""Learning-rate schedules: pure functions of the step, as shares of the highest rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field

from limner.config import Settings

Kind = Literal["cosine", "linear", "constant", "stable"]


class ScheduleSettings(Settings):
    """How the learning rate rises and falls."""

    kind: Kind = "cosine"
    """after the warm-up: cosine (Loshchilov and Hutter 2017), linear, constant, or stable: constant
    and then falling (warmup-stable-decay, Hu et al. 2024)"""
    warmup: float = Field(default=0.02, ge=0)
    """steps in which the rate rises from 0; below 1: as a share of all steps"""
    final: float = Field(default=0.1, ge=0, le=1)
    """the rate at the end, as a share of the highest"""
    decay: float = Field(default=0.2, gt=0, le=1)
    """stable: the share of all steps in which the rate falls"""

    def share(self, step: int, steps: int) -> float:
        """The rate of step `step` (the first is 0) of `steps`, as a share of the highest."""
        warmup = round(self.warmup * steps) if self.warmup < 1 else round(self.warmup)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(steps - warmup, 1)
        return FALLS[self.kind](min(progress, 1.0), self)


def _cosine(progress: float, settings: ScheduleSettings) -> float:
    return settings.final + (1 - settings.final) * (1 + math.cos(math.pi * progress)) / 2


def _linear(progress: float, settings: ScheduleSettings) -> float:
    return 1 - (1 - settings.final) * progress


def _stable(progress: float, settings: ScheduleSettings) -> float:
    falling = max(progress - (1 - settings.decay), 0) / settings.decay
    return 1 - (1 - settings.final) * falling


FALLS: Mapping[Kind, Callable[[float, ScheduleSettings], float]] = {
    "cosine": _cosine,
    "linear": _linear,
    "constant": lambda _, __: 1.0,
    "stable": _stable,
}
