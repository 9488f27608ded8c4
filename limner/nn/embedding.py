"""From token ids to vectors.

B batch, T time, D width, E width of the token vectors, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.nn.norms import NormConfig


@dataclass(frozen=True)
class EmbeddingConfig:
    """Token vectors and what is added to them; without `vocabulary`, only the latter.

    `learned_positions` is how many places have a learned vector (0: none), `first_position` which
    of them the first token takes. `token_types` is how many kinds of token have a vector (BERT's
    two sentences). `scale` multiplies token vectors (Gemma). `norm` comes then. `width` (None: the
    stream's) is narrower in a factorised embedding, which a projection widens (ALBERT); with
    `widen_first` the projection has no bias and comes before the norm (DeBERTa).
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
    widen_first: bool = False
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
        if config.vocabulary:  # sounds and images have vectors of another origin
            self.tokens = nn.Embedding(config.vocabulary, inner)
        self.positions = nn.Embedding(places, inner) if places else None
        self.types = nn.Embedding(types, inner) if types else None
        normed = width if config.widen_first else inner
        self.norm = config.norm.build(normed) if config.norm else None
        bias = not config.widen_first
        self.project = nn.Linear(inner, width, bias) if inner != width else None

    def forward(self, tokens: Tensor, positions: Tensor, types: Tensor | None = None) -> Tensor:
        """Vectors (B, T, D) of `tokens` at `positions`, of kind `types` (0 if None), all (B, T)."""
        return self.place(self.vectors(tokens), positions, types)

    def vectors(self, tokens: Tensor) -> Tensor:
        """The vectors (B, T, E) of `tokens` (B, T) themselves."""
        hidden: Tensor = self.tokens(tokens)
        if self.config.scale != 1.0:
            # Rounded to the weights' type first, as the models that scale were trained.
            hidden = hidden * hidden.new_full((), self.config.scale)
        return hidden

    def place(self, hidden: Tensor, positions: Tensor, types: Tensor | None = None) -> Tensor:
        """Add to vectors (B, T, E) what the config says, to (B, T, D)."""
        if self.types is not None:
            hidden = hidden + self.types(torch.zeros_like(positions) if types is None else types)
        if self.positions is not None:
            places = self.positions.weight[self.config.first_position :]
            hidden = hidden + functional.embedding(positions, places)
        if self.config.sinusoids is not None:
            width, layout = hidden.shape[-1], self.config.sinusoids
            hidden = hidden + sinusoids(positions, width, layout).to(hidden.dtype)
        if self.project is not None and self.config.widen_first:
            hidden = self.project(hidden)
        hidden = hidden if self.norm is None else self.norm(hidden)
        if self.project is not None and not self.config.widen_first:
            hidden = self.project(hidden)
        return hidden


def sinusoids(
    positions: Tensor, width: int, layout: Literal["interleaved", "halves"], base: float = 10_000.0
) -> Tensor:
    """Sines and cosines of `positions` (B, T) at `width` / 2 falling frequencies, (B, T, width)."""
    steps = torch.arange(0, width, 2, device=positions.device)
    frequency = torch.exp(steps * (-math.log(base) / width))  # (width / 2,)
    angle = positions[..., None] * frequency
    pair = (angle.sin(), angle.cos())
    return torch.stack(pair, -1).flatten(-2) if layout == "interleaved" else torch.cat(pair, -1)
