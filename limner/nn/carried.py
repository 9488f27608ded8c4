"""What a recurrent layer carries from token to token: a few tensors a text, however long it is.

n texts, C tokens of each, R rows of a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

#: What one layer carries, each tensor (n, ...).
Carried = tuple[Tensor, ...]


@dataclass(frozen=True)
class CarriedShape:
    """The sizes of the tensors that a layer carries for one text, and what fills them at first."""

    sizes: tuple[tuple[int, ...], ...]
    starts: tuple[float, ...]

    def new(self, texts: int, dtype: torch.dtype, device: torch.device | str) -> Carried:
        """What is carried before the first token of each text.

        At least float32, whatever the model's type: roundings would add up over a long text.
        """
        dtype = torch.promote_types(dtype, torch.float32)
        return tuple(
            torch.full((texts, *size), start, dtype=dtype, device=device)
            for size, start in zip(self.sizes, self.starts, strict=True)
        )

    def restart(self, carried: Carried, row: int) -> None:
        """Put `row` back to before its first token."""
        for kept, start in zip(carried, self.starts, strict=True):
            kept[row] = start


def zeros(*sizes: tuple[int, ...]) -> CarriedShape:
    """Tensors of these sizes that start at nought."""
    return CarriedShape(sizes, (0.0,) * len(sizes))


class Recurrence(Protocol):
    """A mixer that reads a text in order; a state runs it with `state.scan(mixer, inputs)`."""

    layer: int

    @property
    def cache_shape(self) -> CarriedShape:
        """What it carries."""
        ...

    def recur(
        self, inputs: Tensor, carried: Carried, starts: Tensor | None
    ) -> tuple[Tensor, Carried]:
        """Outputs (n, C, ...) of `inputs` (n, C, ...) that follow `carried`, and what to carry on.

        `starts` (n, C) is True where another text begins inside a row; then nothing was carried in,
        and what is carried out will not be used.
        """
        ...


def keep(kept: Carried, rows: slice | Tensor, carried: Carried) -> None:
    """Write what `rows` carry on, (n, ...) each, into `kept` (R, ...) each."""
    for old, new in zip(kept, carried, strict=True):
        old[rows] = new.to(old.dtype)
