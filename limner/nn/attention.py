"""Attention as a mixer: projections and positions, and nothing about how it is being run.

B batch, T time, D width, H query heads, K key-value heads, W head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from limner.nn.alibi import Alibi
from limner.nn.cache import CacheShape
from limner.nn.norms import NormConfig
from limner.nn.packed import together
from limner.nn.rotary import Positions, RotaryConfig, rotate
from limner.nn.scoring import Scoring
from limner.nn.sparse import Banded
from limner.nn.state import State


@dataclass(frozen=True)
class RemovedHeads:
    """Query heads that were taken out, by their first numbers; key-value heads there were."""

    heads: tuple[int, ...]
    key_value_heads: int


@dataclass(frozen=True)
class AttentionConfig:
    """Heads, their width, positions, and how scores are made.

    `key_value_heads` equal to `heads` is multi-head, 1 is multi-query, between is grouped-query.
    `scale` None is 1 / sqrt(head width). `head_norm` normalises each query and key head (Qwen 3).
    `norm_together` normalises the heads of a token as one vector instead (OLMo 2).
    `alibi` biases scores by distance; `relative` by what the stack has learnt of distances (T5);
    `pattern` lists what may be seen of the past (GPT-3). `heads` no longer counts those `removed`.
    """

    heads: int
    key_value_heads: int
    head_width: int
    rotary: RotaryConfig | None = None
    causal: bool = True
    window: int | None = None
    scale: float | None = None
    softcap: float | None = None
    alibi: bool = False
    relative: bool = False
    pattern: Banded | None = None
    head_norm: NormConfig | None = None
    norm_together: bool = False
    removed: RemovedHeads | None = None
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
        bias = Alibi(self.heads) if self.alibi else None
        return Scoring(scale, self.causal, self.window, self.softcap, bias, self.pattern)


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
        together = config.norm_together
        self.query_norm = norm.build(queries if together else config.head_width) if norm else None
        self.key_norm = norm.build(keys if together else config.head_width) if norm else None

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what `state` lets it see, to (B, T, D)."""
        # All three before anything is done to one: no thread of a captured step waits between.
        projected = together((self.query, self.key, self.value), hidden)
        query, key, value = (
            heads.unflatten(-1, (-1, self.config.head_width)) for heads in projected
        )
        query = self.place(query, self.query_norm, positions)
        key = self.place(key, self.key_norm, positions)
        scoring = self.scoring
        if self.config.relative:
            scoring = replace(scoring, bias=positions.relative)
        mixed = state.attend(self.layer, query, key, value, scoring)  # (B, T, H, W)
        return self.output(mixed.flatten(-2))

    def heads(self, project: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """Project and cut into heads, (B, T, H or K, W)."""
        return project(hidden).unflatten(-1, (-1, self.config.head_width))

    def place(self, heads: Tensor, norm: nn.Module | None, positions: Positions) -> Tensor:
        """Normalise heads where the config says so, then turn them to their positions."""
        if norm is not None and self.config.norm_together:
            heads = norm(heads.flatten(-2)).view_as(heads)
        elif norm is not None:
            heads = norm(heads)
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
