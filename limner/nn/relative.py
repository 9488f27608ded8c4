"""A learned bias for each distance between two tokens (Raffel et al. 2019).

B batch, T queries, S keys, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RelativeBiasConfig:
    """Buckets of distances: half of them exact, the rest wider and wider up to `furthest`.

    `both_ways` keeps separate buckets for tokens after the query (encoders).
    """

    heads: int
    buckets: int = 32
    furthest: int = 128
    both_ways: bool = True

    def build(self) -> RelativeBias:
        """Make the table."""
        return RelativeBias(self)

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance key - query."""
        buckets = self.buckets // 2 if self.both_ways else self.buckets
        after = (distance > 0).long() * buckets if self.both_ways else 0
        past = distance.abs() if self.both_ways else (-distance).clamp(min=0)
        exact = buckets // 2
        ratio = torch.log(past.clamp(min=1).float() / exact) / math.log(self.furthest / exact)
        wide = (exact + (ratio * (buckets - exact)).long()).clamp(max=buckets - 1)
        return after + torch.where(past < exact, past, wide)


class RelativeBias(nn.Module):
    """The table that all layers of a stack share."""

    def __init__(self, config: RelativeBiasConfig) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.buckets, config.heads)

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """Bias (B, H, T, S) of keys at places `key` (B, S) for queries at `query` (B, T)."""
        distance = key[:, None, :] - query[:, :, None]  # (B, T, S)
        return self.table(self.config.bucket(distance)).permute(0, 3, 1, 2)
