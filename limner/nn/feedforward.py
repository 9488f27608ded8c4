"""Position-wise feed-forward layers.

B batch, T time, D width, F inner width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from limner import kernels
from limner.kernels import Activation
from limner.nn.packed import together


@dataclass(frozen=True)
class FeedForwardConfig:
    """Inner width, activation, and whether a gate multiplies it.

    Gated with "silu" is SwiGLU, with "gelu_tanh" GEGLU (Shazeer 2020).
    """

    width: int
    activation: Activation = "silu"
    gated: bool = True
    bias: bool = False

    def build(self, width: int) -> nn.Module:
        """Make the module for a stream of `width` numbers."""
        return FeedForward(width, self)


class FeedForward(nn.Module):
    """Widen, bend, narrow; each position by itself."""

    def __init__(self, width: int, config: FeedForwardConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.gate = nn.Linear(width, config.width, config.bias) if config.gated else None
        self.up = nn.Linear(width, config.width, config.bias)
        self.down = nn.Linear(config.width, width, config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `hidden` (B, T, D) to (B, T, D)."""
        if self.gate is None:
            return self.down(kernels.activate(self.up(hidden), self.activation))
        gate, up = together((self.gate, self.up), hidden)
        return self.down(kernels.gated(gate, up, self.activation))
