"""Position-wise feed-forward layers.

B batch, T time, D width, F inner width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "relu_squared", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh"]

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu_squared": lambda hidden: functional.relu(hidden).square(),
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "quick_gelu": lambda hidden: hidden * torch.sigmoid(1.702 * hidden),
    "silu": functional.silu,
    "tanh": torch.tanh,
}


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
        self.activation = ACTIVATIONS[config.activation]
        self.gate = nn.Linear(width, config.width, config.bias) if config.gated else None
        self.up = nn.Linear(width, config.width, config.bias)
        self.down = nn.Linear(config.width, width, config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `hidden` (B, T, D) to (B, T, D)."""
        if self.gate is None:
            return self.down(self.activation(self.up(hidden)))
        return self.down(self.activation(self.gate(hidden)) * self.up(hidden))
