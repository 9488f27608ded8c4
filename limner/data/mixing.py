"""Mixing several streams of rows, by weights or by their sizes at a temperature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy

from limner.data.rows import Row


class Stream(Protocol):
    """Rows for ever, which can be stopped and gone on with."""

    def __iter__(self) -> Iterator[Row]: ...

    def __next__(self) -> Row: ...

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON can hold it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


def shares(sizes: Sequence[float], temperature: float = 1.0) -> list[float]:
    """How much of a mixture each source is: its size to the power 1 / `temperature`, as a share.

    1 keeps the proportions of the sizes, more brings rare sources (languages) up (Devlin et al.
    2019; Conneau et al. 2020). Weights are sizes at temperature 1.

    Raises ValueError for a size or temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    wrong = [size for size in sizes if not size > 0]
    if wrong or not sizes:
        raise ValueError(
            f"weights of a mixture must be above 0, not {wrong[0] if wrong else sizes}"
        )
    powers = [size ** (1 / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]


class Mixture(Iterator[Row]):
    """Each row from a stream drawn by chance.

    Which stream gives row number n depends on (seed, n) alone.
    """

    def __init__(self, streams: Sequence[Stream], weights: Sequence[float], seed: int = 0) -> None:
        if len(streams) != len(weights):
            raise ValueError(f"{len(weights)} weights do not fit {len(streams)} sources")
        self.streams, self.seed, self.given = list(streams), seed, 0
        self.limits = numpy.cumsum(shares(weights))

    def __next__(self) -> Row:
        drawn = numpy.random.default_rng([self.seed, self.given]).random()
        self.given += 1
        chosen = int(numpy.searchsorted(self.limits, drawn, side="right"))
        return next(self.streams[min(chosen, len(self.streams) - 1)])

    def state_dict(self) -> dict[str, Any]:
        """Rows given, and where each stream stands."""
        return {"given": self.given, "streams": [stream.state_dict() for stream in self.streams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; ValueError if the number of sources has changed."""
        if len(state["streams"]) != len(self.streams):
            raise ValueError(
                f"the mixture had {len(state['streams'])} sources and now has {len(self.streams)}: "
                "go on with the same, or start anew in another folder"
            )
        self.given = state["given"]
        for stream, inner in zip(self.streams, state["streams"], strict=True):
            stream.load_state_dict(inner)
