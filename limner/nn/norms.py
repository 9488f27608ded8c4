"""Normalisation layers, chosen by a config.

B batch, T time, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from limner import kernels


@dataclass(frozen=True)
class NormConfig:
    """Which normalisation stands at a place.

    `kind` is "layer" (Ba et al. 2016) or "rms" (Zhang and Sennrich 2019). `unit_offset` stores the
    gain minus one, as Gemma does. `bias` applies to layer normalisation only. `gain` False leaves
    the normalised values unscaled.
    """

    kind: Literal["layer", "rms"] = "rms"
    epsilon: float = 1e-5
    bias: bool = True
    gain: bool = True
    unit_offset: bool = False

    def build(self, width: int) -> nn.Module:
        """Make the module for vectors of `width` numbers."""
        return RMSNorm(width, self) if self.kind == "rms" else LayerNorm(width, self)


class RMSNorm(nn.Module):
    """Divide by the root mean square, then scale (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, config: NormConfig) -> None:
        super().__init__()
        self.width, self.config = width, config
        start = torch.zeros if config.unit_offset else torch.ones
        self.weight = nn.Parameter(start(width)) if config.gain else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise the last dimension of `hidden` (..., D)."""
        gain: Tensor | None = self.weight
        if gain is not None and self.config.unit_offset:
            gain = 1 + gain
        return kernels.rms_norm(hidden, gain, self.config.epsilon)

    def reset(self) -> None:
        """Return to the identity gain."""
        if self.weight is not None:
            nn.init.constant_(self.weight, 0.0 if self.config.unit_offset else 1.0)


class LayerNorm(nn.LayerNorm):
    """Subtract the mean, divide by the deviation, scale and shift (Ba et al. 2016)."""

    def __init__(self, width: int, config: NormConfig) -> None:
        super().__init__(width, config.epsilon, elementwise_affine=config.gain, bias=config.bias)
        self.config = config

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise the last dimension of `hidden` (..., D)."""
        return kernels.layer_norm(hidden, self.weight, self.bias, self.eps)

    def reset(self) -> None:
        """Return to the identity gain and no shift."""
        self.reset_parameters()
