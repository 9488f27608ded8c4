"""From token ids to vectors.

B batch, T time, D width, E width of the token vectors, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from limner.nn.norms import NormConfig


@dataclass(frozen=True)
class EmbeddingConfig:
    """Token vectors and what is added to them.

    `learned_positions` is how many places have a learned vector (0: none), `first_position` which
    of them the first token takes. `token_types` is how many kinds of token have a vector (BERT's
    two sentences). `scale` multiplies token vectors (Gemma). `norm` comes then. `width` (None: the
    stream's) is narrower in a factorised embedding, which a projection widens (ALBERT).
    `sinusoids` adds fixed positions (Vaswani et al. 2017): "interleaved" sines at even and cosines
    at odd dimensions as in the paper, "halves" all sines and then all cosines (Marian).
    """

    vocabulary: int
    learned_positions: int = 0
    first_position: int = 0
    token_types: int = 0
    scale: float = 1.0
    norm: NormConfig | None = None
    width: int | None = None
    sinusoids: Literal["interleaved", "halves"] | None = None

    def build(self, width: int) -> Embedding:
        """Make the module for a stream of `width` numbers."""
        return Embedding(width, self)


class Embedding(nn.Module):
    """Token vectors, plus those of positions and token types where the config has them."""

    def __init__(self, width: int, config: EmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.width or width
        places, types = config.learned_positions, config.token_types
        self.tokens = nn.Embedding(config.vocabulary, inner)
        self.positions = nn.Embedding(places, inner) if places else None
        self.types = nn.Embedding(types, inner) if types else None
        self.norm = config.norm.build(inner) if config.norm else None
        self.project = nn.Linear(inner, width) if inner != width else None

    def forward(self, tokens: Tensor, positions: Tensor, types: Tensor | None = None) -> Tensor:
        """Vectors (B, T, D) of `tokens` at `positions`, of kind `types` (0 if None), all (B, T)."""
        hidden: Tensor = self.tokens(tokens)  # (B, T, E)
        if self.config.scale != 1.0:
            # Rounded to the weights' type first, as the models that scale were trained.
            hidden = hidden * hidden.new_tensor(self.config.scale)
        if self.types is not None:
            hidden = hidden + self.types(torch.zeros_like(tokens) if types is None else types)
        if self.positions is not None:
            hidden = hidden + self.positions(positions + self.config.first_position)
        if self.config.sinusoids is not None:
            width, layout = hidden.shape[-1], self.config.sinusoids
            hidden = hidden + sinusoids(positions, width, layout).to(hidden.dtype)
        hidden = hidden if self.norm is None else self.norm(hidden)
        return hidden if self.project is None else self.project(hidden)


def sinusoids(
    positions: Tensor, width: int, layout: Literal["interleaved", "halves"], base: float = 10_000.0
) -> Tensor:
    """Sines and cosines of `positions` (B, T) at `width` / 2 falling frequencies, (B, T, width)."""
    steps = torch.arange(0, width, 2, device=positions.device)
    frequency = torch.exp(steps * (-math.log(base) / width))  # (width / 2,)
    angle = positions[..., None] * frequency
    pair = (angle.sin(), angle.cos())
    return torch.stack(pair, -1).flatten(-2) if layout == "interleaved" else torch.cat(pair, -1)
