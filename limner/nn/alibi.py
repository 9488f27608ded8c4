"""ALiBi: attention with linear biases instead of positions (Press et al. 2022).

B batch, T queries, S keys, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Alibi:
    """Adds -slope x (i - j) to the score of query i and key j, a slope a head."""

    heads: int

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """Bias (B, H, T, S) of queries at places `query` (B, T) on keys at `key` (B, S)."""
        distance = query[:, None, :, None] - key[:, None, None, :]  # (B, 1, T, S)
        return -self.slopes(query.device)[:, None, None] * distance

    def slopes(self, device: torch.device) -> Tensor:
        """The slope of each head, (H,), brought to the device once."""
        if (self.heads, device) not in _SLOPES:
            # A tensor made while only inferring could not take part in training later.
            with torch.inference_mode(False):
                _SLOPES[self.heads, device] = torch.tensor(alibi_slopes(self.heads), device=device)
        return _SLOPES[self.heads, device]


#: Not a cached function, which torch.compile would look into (see `limner.nn.rotary`).
_SLOPES: dict[tuple[int, torch.device], Tensor] = {}


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head.

    For a power of two the geometric series from 2^(-8 / heads). Otherwise that of the next smaller
    power of two, then every other slope of twice as many heads, from the first.
    """
    power = 2 ** math.floor(math.log2(heads))
    between = _series(2 * power)[::2][: heads - power]
    return _series(power) + between


def _series(heads: int) -> list[float]:
    return [2.0 ** (-8 * head / heads) for head in range(1, heads + 1)]
