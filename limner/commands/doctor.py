"""`limner doctor`: say before a long run whether it will fit and learn what it should."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.training.pretraining import PretrainSettings


class Command(PretrainSettings, CommandSettings):
    """Say before a long run whether it will fit and learn what it should.

    `limner doctor settings.yaml` takes what `limner pretrain` takes, and writes nothing. Each line
    is a check: OK, WARN or FAIL, with what was found. If one fails, the exit code is 2.
    """

    positional: ClassVar[tuple[str, ...]] = ("data", "folder")

    price: float | None = Field(default=None, ge=0)
    """of an hour on this machine, to work out the cost"""
    hours: float | None = Field(default=None, gt=0)
    """fail if it takes longer"""
    budget: float | None = Field(default=None, ge=0)
    """fail if it costs more"""
    against: list[str] = Field(default_factory=list)
    """files of texts to evaluate on, which must not be trained on: a text a line, or JSON lines or
    Parquet, of which every text counts"""
    run_length: int = Field(default=13, ge=1)
    """so many tokens in a row, found in both, are a sign of contamination"""


def run(settings: Command) -> None:
    """Print the checks; ValueError names those that failed."""
    from limner.training.doctor.diagnosis import Limits, diagnose

    limits = Limits(
        settings.price,
        settings.hours,
        settings.budget,
        tuple(settings.against),
        settings.run_length,
    )
    failed, count = [], 0
    for check in diagnose(settings, limits):
        print(check, flush=True)
        count += 1
        if check.level == "FAIL":
            failed.append(check.name)
    if failed:
        raise ValueError(f"{len(failed)} of {count} checks failed: {', '.join(failed)}")
