"""A text that was read before, for layers that look at it (cross-attention).

B batch, T time, S tokens of the source, D width, H query heads, K key-value heads, W head width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from limner.nn.carried import Recurrence
from limner.nn.scoring import Scoring, attention
from limner.nn.state import State


class Remembering(State):
    """Any state, and beside it the encoded source that every token may consult.

    `memory` (B, S, D) are the encoder's hidden vectors; `mask` (B, S) is False at padding. Keys
    and values of the memory are worked out once a layer, however many tokens follow.
    """

    def __init__(self, inner: State, memory: Tensor, mask: Tensor | None = None) -> None:
        self.inner, self.memory = inner, memory
        self.mask = None if mask is None else mask.bool()[:, None, None, :]  # (B, 1, 1, S)
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def can_rewind(self) -> bool:  # type: ignore[override]
        """Whether the inner state can."""
        return self.inner.can_rewind

    @property
    def keeps(self) -> bool:  # type: ignore[override]
        """Whether the inner state does."""
        return self.inner.keeps

    def begin(self, batch: int, time: int) -> State:
        """The inner state for a forward pass, with the same memory."""
        return self.over(self.inner.begin(batch, time))

    def over(self, inner: State) -> Remembering:
        """The same memory beside another state."""
        state = Remembering(inner, self.memory)
        state.mask, state._kept = self.mask, self._kept
        return state

    def choose(self, rows: Sequence[int]) -> Remembering:
        """The memory of these rows, in this order; some may come several times."""
        index = torch.tensor(rows, dtype=torch.long, device=self.memory.device)
        state = Remembering(self.inner, self.memory[index])
        state.mask = None if self.mask is None else self.mask[index]
        state._kept = {
            layer: (key[index], value[index]) for layer, (key, value) in self._kept.items()
        }
        return state

    def positions(self, batch: int, time: int, device: torch.device) -> Tensor:
        """As the inner state says."""
        return self.inner.positions(batch, time, device)

    def text_lengths(self, positions: Tensor) -> Tensor:
        """As the inner state says."""
        return self.inner.text_lengths(positions)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """As the inner state does."""
        return self.inner.attend(layer, query, key, value, scoring)

    def scan(self, mixer: Recurrence, inputs: Tensor) -> Tensor:
        """As the inner state does."""
        return self.inner.scan(mixer, inputs)

    def consult(
        self,
        layer: int,
        query: Tensor,
        project: Callable[[Tensor], tuple[Tensor, Tensor]],
        scoring: Scoring,
    ) -> Tensor:
        """Mix values of the memory for `query` (B, T, H, W), to (B, T, H, W)."""
        if layer not in self._kept:
            key, value = project(self.memory)  # (B, S, K, W)
            self._kept[layer] = key.transpose(1, 2), value.transpose(1, 2)
        key, value = self._kept[layer]
        mixed = attention(query.transpose(1, 2), key, value, scoring, self.mask)
        return mixed.transpose(1, 2)

    def end(self) -> None:
        """As the inner state does."""
        self.inner.end()
