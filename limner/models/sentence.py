"""Sentence encoders: one vector for each text (Reimers and Gurevych 2019).

B batch, T time, D width, P width of the pooled vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.kernels.activations import ACTIVATIONS, Activation
from limner.models.network import Network
from limner.nn.state import Documents

Mode = Literal["first", "max", "mean", "mean_sqrt_length", "weighted_mean", "last"]


def _sum(hidden: Tensor, weights: Tensor) -> Tensor:
    """The sum of `hidden` (B, T, D) by `weights` (B, T)."""
    return torch.einsum("btd,bt->bd", hidden, weights.to(hidden.dtype))


def _mean(hidden: Tensor, weights: Tensor) -> Tensor:
    return _sum(hidden, weights) / weights.sum(1, keepdim=True).clamp(min=1)


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    index = torch.arange(mask.shape[1], device=mask.device)
    return hidden[torch.arange(len(hidden), device=mask.device), (index * mask).argmax(1)]


#: How vectors (B, T, D) of tokens become one of the text (B, D), given its mask (B, T).
POOLINGS: dict[Mode, Callable[[Tensor, Tensor], Tensor]] = {
    "first": lambda hidden, mask: hidden[:, 0],
    "max": _max,
    "mean": _mean,
    "mean_sqrt_length": lambda hidden, mask: (
        _sum(hidden, mask) / mask.sum(1, keepdim=True).clamp(min=1).sqrt()
    ),
    "weighted_mean": lambda hidden, mask: _mean(hidden, mask.cumsum(1) * mask),
    "last": _last,
}


@dataclass(frozen=True)
class PoolingConfig:
    """Ways of pooling; the vectors of several are laid end to end."""

    modes: tuple[Mode, ...] = ("mean",)


@dataclass(frozen=True)
class DenseConfig:
    """A projection of the pooled vector."""

    inputs: int
    outputs: int
    bias: bool = True
    activation: Activation | None = "tanh"


@dataclass(frozen=True)
class NormalizeConfig:
    """Division by the length of the vector."""


StepConfig = DenseConfig | NormalizeConfig


class Dense(nn.Module):
    """Project and bend."""

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.inputs, config.outputs, config.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (B, P) to (B, P)."""
        projected: Tensor = self.linear(pooled)
        activation = self.config.activation
        return ACTIVATIONS[activation](projected) if activation else projected


class Normalize(nn.Module):
    """Make vectors one long, so that products are cosines."""

    def __init__(self, config: NormalizeConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (B, P) to (B, P)."""
        return functional.normalize(pooled, dim=-1)


class SentenceEncoder(nn.Module):
    """An encoder (or a decoder without its head), pooling, and what comes after it."""

    def __init__(
        self, network: Network, pooling: PoolingConfig, steps: tuple[StepConfig, ...]
    ) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling
        self.steps = nn.ModuleList(
            Dense(step) if isinstance(step, DenseConfig) else Normalize(step) for step in steps
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Vectors (B, P) of the texts `tokens` (B, T), whose `mask` (B, T) is 0 at padding.

        Padding stands after the text.
        """
        hidden = self.network(tokens, state=Documents(mask))  # (B, T, D)
        pooled = torch.cat([POOLINGS[mode](hidden, mask) for mode in self.pooling.modes], -1)
        for step in self.steps:
            pooled = step(pooled)
        return pooled

    @property
    def normalizes(self) -> bool:
        """Whether its vectors are one long."""
        return bool(self.steps) and isinstance(self.steps[-1], Normalize)

    @property
    def width(self) -> int:
        """The width P of the vectors."""
        widths = [step.config.outputs for step in self.steps if isinstance(step, Dense)]
        return widths[-1] if widths else len(self.pooling.modes) * self.network.config.width
