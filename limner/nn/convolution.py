"""Convolution over the tokens of a text, as a mixer.

B batch, T time, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.kernels.activations import ACTIVATIONS, Activation
from limner.nn.rotary import Positions
from limner.nn.state import State


@dataclass(frozen=True)
class ConvolutionConfig:
    """How many neighbours are looked at (`kernel`, odd, the token itself among them), and how."""

    kernel: int = 3
    groups: int = 1
    activation: Activation = "tanh"

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return Convolution(width, self)


class Convolution(nn.Module):
    """Each token and its neighbours on both sides, bent."""

    def __init__(self, width: int, config: ConvolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.kernel = nn.Conv1d(width, width, config.kernel, groups=config.groups)

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with its neighbours in the same text."""
        half = self.config.kernel // 2
        total = hidden.new_zeros(())
        for place in range(self.config.kernel):
            near = state.neighbours(hidden, place - half).transpose(1, 2)  # (B, D, T)
            part = self.kernel.weight[:, :, place : place + 1]
            product = functional.conv1d(near, part, groups=self.config.groups)
            total = total + product.transpose(1, 2)  # (B, T, D)
        assert self.kernel.bias is not None
        return ACTIVATIONS[self.config.activation](total + self.kernel.bias)

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """Random weights to begin with."""
        nn.init.normal_(self.kernel.weight, std=deviation, generator=generator)
        if self.kernel.bias is not None:
            nn.init.zeros_(self.kernel.bias)
