"""The forward pass of one step.

N tokens laid end to end, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from limner.inference.scheduler import Cache, Work


class Limits(Protocol):
    """What the engine needs to know of a network's settings."""

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        ...


class Network(Protocol):
    """A decoder (`limner.models.decoder.Decoder`): hidden vectors, then logits where wanted."""

    @property
    def config(self) -> Limits:
        """Its settings."""
        ...

    @property
    def head(self) -> Callable[..., Any]:
        """From hidden vectors (1, n, D) to logits (1, n, V)."""
        ...

    @property
    def __call__(self) -> Callable[..., Any]:
        """From tokens (1, N), positions (1, N) and a state to hidden vectors (1, N, D)."""
        ...

    def parameters(self) -> Iterator[Any]:
        """Its weights."""
        ...

    def new_cache(self, rows: int, capacity: int) -> Cache:
        """An empty cache for `rows` texts of up to `capacity` tokens."""
        ...


class Runner:
    """Computes a step's tokens, all sequences in one pass, and the logits of those that draw."""

    def __init__(self, network: Network, cache: Cache) -> None:
        self.network, self.cache = network, cache

    def run(self, work: Sequence[Work]) -> Tensor:
        """The logits (R, V) after the last token of each work that draws, in their order."""
        picked, offset = [], 0
        for item in work:
            offset += item.count
            if item.draws:
                picked.append(offset - 1)
        if not work:
            return torch.empty(0, self.network.config.vocabulary)
        hidden = self._forward(work)  # (1, N, D)
        logits: Tensor = self.network.head(hidden[:, picked])  # (1, R, V)
        return logits[0]

    def _forward(self, work: Sequence[Work]) -> Tensor:
        tokens: list[int] = []
        positions: list[int] = []
        for item in work:
            start, end = item.sequence.computed, item.sequence.computed + item.count
            tokens += item.sequence.tokens[start:end]
            positions += range(start, end)
        state = self.cache.step([(item.row, item.count) for item in work])
        device = next(self.network.parameters()).device
        hidden: Tensor = self.network(
            torch.tensor([tokens], device=device), torch.tensor([positions], device=device), state
        )
        return hidden
