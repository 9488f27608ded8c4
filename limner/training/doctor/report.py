"""What a check found."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["OK", "WARN", "FAIL"]


class Check(NamedTuple):
    """One line of the doctor's report: what was looked at, how it stands, and the figures."""

    name: str
    level: Level
    said: str

    def __str__(self) -> str:
        return f"{self.level:4}  {self.name:13}  {self.said}"
