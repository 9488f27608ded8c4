"""Performer's mixer: softmax attention by random features, FAVOR+ (Choromanski et al. 2021).

exp(q . k) is the mean over random w of exp(w . q - |q|^2 / 2) exp(w . k - |k|^2 / 2): a product of
something of q and something of k, so that the sum over keys can be carried along.

n texts, C tokens of each, B batch, T time, D width, H heads, W head width, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limner.nn.carried import Carried, CarriedShape
from limner.nn.linear_attention import decayed_attention
from limner.nn.rotary import Positions, RotaryConfig, rotate
from limner.nn.scans import running_maximum
from limner.nn.state import State

#: What the running maximum of a text without keys stands at.
NOTHING = -1e38


@dataclass(frozen=True)
class PerformerConfig:
    """Heads, and how many random features stand for the softmax.

    The error falls as 1 / sqrt(`features`); W log W of them are customary. `seed` draws the first.
    """

    heads: int
    head_width: int
    features: int
    bias: bool = False
    rotary: RotaryConfig | None = None
    seed: int = 0

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return Performer(width, layer, self)


class Performer(nn.Module):
    """Causal attention in time linear in the text, its random features saved with the model."""

    features: Tensor  # (F, W)

    def __init__(self, width: int, layer: int, config: PerformerConfig) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        inner = config.heads * config.head_width
        self.query = nn.Linear(width, inner, config.bias)
        self.key = nn.Linear(width, inner, config.bias)
        self.value = nn.Linear(width, inner, config.bias)
        self.output = nn.Linear(inner, width, config.bias)
        generator = torch.Generator().manual_seed(config.seed + layer)
        drawn = orthogonal_features(config.features, config.head_width, generator)
        self.register_buffer("features", drawn)

    @property
    def cache_shape(self) -> CarriedShape:
        """Sums over keys of features by values and 1, and the maximum they are divided by."""
        heads, width = self.config.heads, self.config.head_width
        return CarriedShape(((heads, self.config.features, width + 1), (heads,)), (0.0, NOTHING))

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what came before it, to (B, T, D)."""
        query, key, value = (
            project(hidden).unflatten(-1, (self.config.heads, -1))  # (B, T, H, W)
            for project in (self.query, self.key, self.value)
        )
        if (rotary := self.config.rotary) is not None:
            angles = positions.angles(rotary)
            query, key = (rotate(heads, *angles, rotary.interleaved) for heads in (query, key))
        return self.output(state.scan(self, torch.stack((query, key, value), 2)).flatten(-2))

    def recur(
        self, inputs: Tensor, carried: Carried, starts: Tensor | None
    ) -> tuple[Tensor, Carried]:
        """Outputs (n, C, H, W) of queries, keys and values (n, C, 3, H, W).

        See `limner.nn.carried.Recurrence`.
        """
        sums, before = carried
        query, key, value = inputs.to(sums.dtype).unbind(2)
        query = exponents(query, self.features)  # (n, C, H, F)
        query = (query - query.detach().amax(-1, keepdim=True)).exp()
        key = exponents(key, self.features)
        largest, log_decay = _running_scale(key.detach().amax(-1), before, starts)
        key = (key - largest[..., None]).exp()
        value = torch.cat((value, torch.ones_like(value[..., :1])), -1)  # (n, C, H, W + 1)
        mixed, sums = decayed_attention(query, key, value, log_decay, sums, starts)
        total = mixed[..., -1:].clamp_min(torch.finfo(mixed.dtype).tiny)
        return (mixed[..., :-1] / total).to(inputs.dtype), (sums, largest[:, -1])

    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draw other features, as the paper does every so many steps of training."""
        drawn = orthogonal_features(self.config.features, self.config.head_width, generator)
        self.features.copy_(drawn)


def orthogonal_features(
    features: int, width: int, generator: torch.Generator | None = None
) -> Tensor:
    """Normally distributed directions (F, W), orthogonal to each other in every W of them."""
    blocks = []
    for begin in range(0, features, width):
        square = torch.randn(width, width, generator=generator, device="cpu")
        rotation, triangle = torch.linalg.qr(square)
        # QR prefers some signs; without them every rotation is as likely (Mezzadri 2007).
        rotation = rotation * triangle.diagonal().sign()
        blocks.append(rotation[: features - begin])
    lengths = torch.randn(features, width, generator=generator, device="cpu").norm(dim=1)
    return torch.cat(blocks) * lengths[:, None]


def exponents(heads: Tensor, features: Tensor) -> Tensor:
    """For heads x (..., W), divided by the root of sqrt(W), all w . x - |x|^2 / 2: (..., F)."""
    heads = heads / math.sqrt(math.sqrt(heads.shape[-1]))
    squares = heads.square().sum(-1, keepdim=True) / 2
    return heads @ features.to(heads.dtype).t() - squares


def _running_scale(largest: Tensor, before: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """The largest exponent up to each token, and the logarithm of what sums shrink by for it.

    Keys are divided by the largest so far, which cancels in the quotient and looks at no later key.
    From exponents (n, C, H) of keys and those carried (n, H) to two of (n, C, H).
    """
    forget = torch.zeros_like(largest)
    if starts is not None:
        forget = forget.masked_fill(starts[..., None], float("inf"))
    running = running_maximum(forget, largest, before)
    previous = torch.cat((before[:, None], running[:, :-1]), 1)
    nothing = previous == NOTHING if starts is None else (previous == NOTHING) | starts[..., None]
    return running, (previous - running).masked_fill(nothing, 0)
