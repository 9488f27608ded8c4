"""From token ids to vectors.

B batch, T time, D width, E width of the token vectors, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    vocabulary: int
    learned_positions: int = 0
    first_position: int = 0
    token_types: int = 0
    scale: float = 1.0
    norm: NormConfig | None = None
    width: int | None = None

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
        hidden = hidden if self.norm is None else self.norm(hidden)
        return hidden if self.project is None else self.project(hidden)
