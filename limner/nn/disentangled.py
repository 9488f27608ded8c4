"""Disentangled attention: what tokens say and how far apart they stand, scored apart.

B batch, T queries, S keys, D width, H heads, W head width, R distances on each side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from limner.nn.attention import Attention, AttentionConfig
from limner.nn.norms import NormConfig
from limner.nn.rotary import Positions
from limner.nn.state import State


@dataclass(frozen=True)
class DistanceVectorsConfig:
    """A vector for each distance, `reach` of them to either side; `norm` comes before use."""

    reach: int
    norm: NormConfig | None = None

    def build(self, width: int) -> DistanceVectors:
        """Make the table for a stream of `width` numbers."""
        return DistanceVectors(width, self)


class DistanceVectors(nn.Module):
    """The vectors of distances that all layers of a stack share."""

    def __init__(self, width: int, config: DistanceVectorsConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(2 * config.reach, width)
        self.norm = config.norm.build(width) if config.norm else None

    def forward(self) -> Tensor:
        """The vectors (2R, D), from R behind to R - 1 ahead."""
        return self.table.weight if self.norm is None else self.norm(self.table.weight)


@dataclass(frozen=True)
class DisentangledConfig:
    """Attention whose scores add products with the vectors of distances.

    `reach` distances to either side are told apart; with `exact` the nearest of them singly and the
    others in buckets that widen up to `furthest`. `content_to_position` multiplies queries by keys
    made of distances, `position_to_content` keys by queries made of distances; `shared` makes them
    by the projections of the tokens.
    """

    attention: AttentionConfig
    reach: int
    furthest: int
    exact: int | None = None
    content_to_position: bool = True
    position_to_content: bool = True
    shared: bool = False

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return DisentangledAttention(width, layer, self)

    def index(self, distance: Tensor) -> Tensor:
        """The row of the table of distances for each distance query - key."""
        return (self.bucket(distance) + self.reach).clamp(0, 2 * self.reach - 1)

    def bucket(self, distance: Tensor) -> Tensor:
        """Distances, the far ones in buckets."""
        if self.exact is None:
            return distance
        size = distance.abs().clamp(min=self.exact).double()
        steps = (size / self.exact).log() / math.log((self.furthest - 1) / self.exact)
        # A hair less, lest rounding lift an exact step to the next.
        wide = (steps * (self.exact - 1) - 1e-6).ceil().clamp(min=0).long() + self.exact
        return torch.where(distance.abs() <= self.exact, distance, distance.sign() * wide)


class DisentangledAttention(Attention):
    """DeBERTa's attention (He et al. 2020, version 3 He et al. 2021)."""

    def __init__(self, width: int, layer: int, config: DisentangledConfig) -> None:
        heads = config.attention
        super().__init__(width, layer, heads)
        self.disentangled = config
        kinds = 1 + config.content_to_position + config.position_to_content
        self.scoring = replace(self.scoring, scale=1 / math.sqrt(heads.head_width * kinds))
        inner = heads.heads * heads.head_width
        self.position_key = self.position_query = None
        if config.content_to_position and not config.shared:
            self.position_key = nn.Linear(width, inner)
        if config.position_to_content and not config.shared:
            self.position_query = nn.Linear(width, inner)

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what `state` lets it see, to (B, T, D)."""
        query, key = self.heads(self.query, hidden), self.heads(self.key, hidden)  # (B, T, H, W)
        value = self.heads(self.value, hidden)
        assert positions.distances is not None
        scoring = replace(self.scoring, bias=self.bias(query, key, positions.distances))
        mixed = state.attend(self.layer, query, key, value, scoring)  # (B, T, H, W)
        return self.output(mixed.flatten(-2))

    def bias(
        self, query: Tensor, key: Tensor, distances: Tensor
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """What distances add to the scores of these queries and keys, given their places."""

        def between(query_place: Tensor, key_place: Tensor) -> Tensor:
            distance = query_place[:, :, None] - key_place[:, None, :]
            index = self.disentangled.index(distance)[:, None]  # (B, 1, T, S)
            total = query.new_zeros(())
            if self.disentangled.content_to_position:
                keys = self.heads(self.position_key or self.key, distances)  # (2R, H, W)
                total = total + pick(query, keys, index)
            if self.disentangled.position_to_content:
                queries = self.heads(self.position_query or self.query, distances)
                total = total + pick(key, queries, index.transpose(2, 3)).transpose(2, 3)
            return total * self.scoring.scale

        return between


def pick(heads: Tensor, distances: Tensor, index: Tensor) -> Tensor:
    """Products (B, H, T, S) of `heads` (B, T, H, W) with the `distances` (2R, H, W) of `index`."""
    scores = torch.einsum("bthw,rhw->bhtr", heads, distances)
    return scores.gather(-1, index.expand(*scores.shape[:2], -1, -1))
