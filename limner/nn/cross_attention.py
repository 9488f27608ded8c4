"""Attention to a text read before: queries from here, keys and values from there.

B batch, T time, S tokens of the source, D width, H query heads, K key-value heads, W head width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from limner.nn.attention import AttentionConfig
from limner.nn.memory import Remembering
from limner.nn.rotary import Positions
from limner.nn.state import State


@dataclass(frozen=True)
class CrossAttentionConfig:
    """The heads, as in attention to one's own text but without positions.

    `source_width` is the width of the encoder's vectors (None: the stream's own).
    """

    attention: AttentionConfig
    source_width: int | None = None

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return CrossAttention(width, layer, self)


class CrossAttention(nn.Module):
    """Every token looks at the whole source (Vaswani et al. 2017)."""

    def __init__(self, width: int, layer: int, config: CrossAttentionConfig) -> None:
        super().__init__()
        heads = config.attention
        self.layer, self.scoring, self.head_width = layer, heads.scoring, heads.head_width
        source = config.source_width or width
        queries, keys = heads.heads * heads.head_width, heads.key_value_heads * heads.head_width
        self.query = nn.Linear(width, queries, heads.query_bias)
        self.key = nn.Linear(source, keys, heads.key_bias)
        self.value = nn.Linear(source, keys, heads.value_bias)
        self.output = nn.Linear(queries, width, heads.output_bias)

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix the source into `hidden` (B, T, D)."""
        if not isinstance(state, Remembering):
            raise ValueError("this model reads a source text first: pass the state of `read(...)`")
        query = self.query(hidden).unflatten(-1, (-1, self.head_width))  # (B, T, H, W)
        mixed = state.consult(self.layer, query, self.project, self.scoring)
        return self.output(mixed.flatten(-2))

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, S, K, W) of the source's vectors (B, S, D)."""
        heads = (-1, self.head_width)
        return self.key(memory).unflatten(-1, heads), self.value(memory).unflatten(-1, heads)
