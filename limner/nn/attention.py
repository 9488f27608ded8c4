"""Attention as a mixer: projections and positions, and nothing about how it is being run.

B batch, T time, D width, H query heads, K key-value heads, W head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from limner.nn.norms import NormConfig
from limner.nn.rotary import Positions, RotaryConfig, rotate
from limner.nn.scoring import Scoring
from limner.nn.state import CacheShape, State


@dataclass(frozen=True)
class AttentionConfig:
    """Heads, their width, positions, and how scores are made.

    `key_value_heads` equal to `heads` is multi-head, 1 is multi-query, between is grouped-query.
    `scale` None is 1 / sqrt(head width). `head_norm` normalises each query and key head (Qwen 3);

    """

    heads: int
    key_value_heads: int
    head_width: int
    rotary: RotaryConfig | None = None
    causal: bool = True
    window: int | None = None
    scale: float | None = None
    softcap: float | None = None
    head_norm: NormConfig | None = None
    query_bias: bool = False
    key_bias: bool = False
    value_bias: bool = False
    output_bias: bool = False

    def __post_init__(self) -> None:
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"{self.heads} query heads cannot share {self.key_value_heads} key-value heads "
                f"evenly: choose a divisor of {self.heads}"
            )

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return Attention(width, layer, self)

    @property
    def scoring(self) -> Scoring:
        """How scores are made, for the state that makes them."""
        scale = 1 / math.sqrt(self.head_width) if self.scale is None else self.scale
        return Scoring(scale, self.causal, self.window, self.softcap)


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023); multi-head if each query has its keys."""

    def __init__(self, width: int, layer: int, config: AttentionConfig) -> None:
        super().__init__()
        self.layer, self.config, self.scoring = layer, config, config.scoring
        queries = config.heads * config.head_width
        keys = config.key_value_heads * config.head_width
        self.query = nn.Linear(width, queries, config.query_bias)
        self.key = nn.Linear(width, keys, config.key_bias)
        self.value = nn.Linear(width, keys, config.value_bias)
        self.output = nn.Linear(queries, width, config.output_bias)
        norm = config.head_norm
        self.query_norm = norm.build(config.head_width) if norm else None
        self.key_norm = norm.build(config.head_width) if norm else None

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what `state` lets it see, to (B, T, D)."""
        query = self.place(self.heads(self.query, hidden), self.query_norm, positions)
        key = self.place(self.heads(self.key, hidden), self.key_norm, positions)
        value = self.heads(self.value, hidden)  # (B, T, K, W)
        mixed = state.attend(self.layer, query, key, value, self.scoring)  # (B, T, H, W)
        return self.output(mixed.flatten(-2))

    def heads(self, project: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """Project and cut into heads, (B, T, H or K, W)."""
        return project(hidden).unflatten(-1, (-1, self.config.head_width))

    def place(self, heads: Tensor, norm: nn.Module | None, positions: Positions) -> Tensor:
        """Normalise heads where the config says so, then turn them to their positions."""
        heads = heads if norm is None else norm(heads)
        rotary = self.config.rotary
        return (
            heads
            if rotary is None
            else rotate(heads, *positions.angles(rotary), rotary.interleaved)
        )

    @property
    def cache_shape(self) -> CacheShape:
        """What a cache keeps of each token for this layer."""
        return CacheShape(
            self.config.key_value_heads, self.config.head_width, self.config.head_width
        )
