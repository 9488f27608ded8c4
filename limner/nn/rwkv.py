"""RWKV-4's two mixers: over time by a decaying average, and over channels (Peng et al. 2023).

n texts, C tokens of each, B batch, T time, D width, A width of the average, F inner width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.nn.carried import Carried, CarriedShape, zeros
from limner.nn.rotary import Positions
from limner.nn.scans import linear_scan, running_maximum
from limner.nn.state import State
from limner.nn.windows import windows, with_past

#: What the running maximum of a text without keys stands at.
NOTHING = -1e38


@dataclass(frozen=True)
class TimeMixConfig:
    """An average over time of `width` numbers."""

    width: int

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return TimeMix(width, layer, self)


@dataclass(frozen=True)
class ChannelMixConfig:
    """A feed-forward of inner `width` that also sees the token before."""

    width: int

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return ChannelMix(width, layer, self)


class Shifted(nn.Module):
    """Part of each number of a token, the rest of the same number of the token before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.empty(width))

    def forward(self, inputs: Tensor, before: Tensor) -> Tensor:
        """Mix (n, C, D) and (n, C, D)."""
        return inputs * self.share + before * (1 - self.share)

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """From all of the token before to all of this, channel by channel."""
        with torch.no_grad():
            self.share.copy_(torch.linspace(0, 1, len(self.share)))


def shift(inputs: Tensor, past: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
    """The token before each of `inputs` (n, C, D), zeros where there is none, and the last."""
    joined, last = with_past(inputs, past)
    return windows(joined, 2, starts)[:, :, 0], last


class TimeMix(nn.Module):
    """Average values, weighted by keys and by how long ago; a gate decides what passes."""

    def __init__(self, width: int, layer: int, config: TimeMixConfig) -> None:
        super().__init__()
        self.layer, self.config, self.width = layer, config, width
        self.for_key, self.for_value, self.for_gate = (Shifted(width) for _ in range(3))
        self.key = nn.Linear(width, config.width, bias=False)
        self.value = nn.Linear(width, config.width, bias=False)
        self.gate = nn.Linear(width, config.width, bias=False)
        self.output = nn.Linear(config.width, width, bias=False)
        self.log_decay = nn.Parameter(torch.empty(config.width))
        self.bonus = nn.Parameter(torch.empty(config.width))

    @property
    def cache_shape(self) -> CarriedShape:
        """The last token, sums of values and of weights, and the maximum they are divided by."""
        width = self.config.width
        return CarriedShape(((1, self.width), (width, 2), (width,)), (0.0, 0.0, NOTHING))

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what came before it, to (B, T, D)."""
        return self.output(state.scan(self, hidden))

    def recur(
        self, inputs: Tensor, carried: Carried, starts: Tensor | None
    ) -> tuple[Tensor, Carried]:
        """Gated averages (n, C, A) of `inputs` (n, C, D); see `limner.nn.carried.Recurrence`."""
        past, sums, largest = carried
        before, past = shift(inputs, past, starts)
        key = self.key(self.for_key(inputs, before)).to(sums.dtype)
        value = self.value(self.for_value(inputs, before)).to(sums.dtype)
        gate = torch.sigmoid(self.gate(self.for_gate(inputs, before)))
        mixed, sums, largest = self.average(key, value, sums, largest, starts)
        return gate * mixed.to(inputs.dtype), (past, sums, largest)

    def average(
        self, key: Tensor, value: Tensor, sums: Tensor, largest: Tensor, starts: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Averages (n, C, A) of values weighted by exp(key), `bonus` on the token's own.

        Sums (n, A, 2) are kept divided by exp(`largest`), (n, A), which cancels.
        """
        decay = self.log_decay.to(key.dtype).exp()
        forget = decay.detach().expand_as(key)
        if starts is not None:
            forget = forget.masked_fill(starts[..., None], float("inf"))
        running = running_maximum(forget, key.detach(), largest)  # (n, C, A)
        previous = torch.cat((largest[:, None], running[:, :-1]), 1)
        if starts is not None:
            previous = previous.masked_fill(starts[..., None], NOTHING)
        kept = torch.exp(previous - decay - running)[..., None]
        weighted = torch.stack((value, torch.ones_like(value)), -1)  # (n, C, A, 2)
        history = linear_scan(
            kept.expand_as(weighted), (key - running).exp()[..., None] * weighted, sums
        )
        earlier = torch.cat((sums[:, None], history[:, :-1]), 1)
        own = self.bonus + key
        scale = torch.maximum(previous, own).detach()
        totals = (previous - scale).exp()[..., None] * earlier
        totals = totals + (own - scale).exp()[..., None] * weighted
        return totals[..., 0] / totals[..., 1], history[:, -1], running[:, -1]

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """Channels from slow to fast decay, as in the paper; a constant bonus."""
        with torch.no_grad():
            self.log_decay.copy_(torch.linspace(-5, 3, len(self.log_decay)))
            self.bonus.fill_(-1.2)  # log 0.3


class ChannelMix(nn.Module):
    """Widen, square what is positive, narrow, gate."""

    def __init__(self, width: int, layer: int, config: ChannelMixConfig) -> None:
        super().__init__()
        self.layer, self.width = layer, width
        self.for_key, self.for_gate = Shifted(width), Shifted(width)
        self.key = nn.Linear(width, config.width, bias=False)
        self.output = nn.Linear(config.width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)

    @property
    def cache_shape(self) -> CarriedShape:
        """The last token."""
        return zeros((1, self.width))

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Map `hidden` (B, T, D) and the token before each to (B, T, D)."""
        before = state.scan(self, hidden)
        inner = functional.relu(self.key(self.for_key(hidden, before))).square()
        return torch.sigmoid(self.gate(self.for_gate(hidden, before))) * self.output(inner)

    def recur(
        self, inputs: Tensor, carried: Carried, starts: Tensor | None
    ) -> tuple[Tensor, Carried]:
        """The token before each of (n, C, D); see `limner.nn.carried.Recurrence`."""
        before, last = shift(inputs, carried[0], starts)
        return before, (last,)
