"""From token ids to vectors.

B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from limner.nn.norms import NormConfig


@dataclass(frozen=True)
class EmbeddingConfig:
    """Token vectors and what is added to them.

    `learned_positions` is how many positions have a learned vector (0: none). `scale` multiplies
    token vectors (Gemma). `norm` comes last.
    """

    vocabulary: int
    learned_positions: int = 0
    scale: float = 1.0
    norm: NormConfig | None = None

    def build(self, width: int) -> Embedding:
        """Make the module for a stream of `width` numbers."""
        return Embedding(width, self)


class Embedding(nn.Module):
    """Token vectors, plus learned position vectors where the config has them."""

    def __init__(self, width: int, config: EmbeddingConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, width)
        places = config.learned_positions
        self.positions = nn.Embedding(places, width) if places else None
        self.norm = config.norm.build(width) if config.norm else None

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Vectors (B, T, D) of `tokens` (B, T) standing at `positions` (B, T)."""
        hidden: Tensor = self.tokens(tokens)
        if self.config.scale != 1.0:
            # Rounded to the weights' type first, as the models that scale were trained.
            hidden = hidden * hidden.new_tensor(self.config.scale)
        if self.positions is not None:
            hidden = hidden + self.positions(positions)
        return hidden if self.norm is None else self.norm(hidden)
