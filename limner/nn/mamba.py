"""Mamba's mixer: a selective state-space layer (Gu and Dao 2023).

n texts, C tokens of each, D width of the stream, I inner width, S states a channel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.kernels.activations import ACTIVATIONS, Activation
from limner.nn.carried import Carried, CarriedShape, zeros
from limner.nn.rotary import Positions
from limner.nn.scans import linear_scan
from limner.nn.state import State
from limner.nn.windows import causal_convolution, with_past

#: Tokens scanned at once. Their states exist side by side, S times as many numbers as inputs.
CHUNK = 64


@dataclass(frozen=True)
class MambaConfig:
    """Inner width, states a channel, taps of the convolution, rank of the steps' projection."""

    inner_width: int
    states: int = 16
    taps: int = 4
    rank: int = 1
    bias: bool = False
    convolution_bias: bool = True
    activation: Activation = "silu"

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return Mamba(width, layer, self)


class Mamba(nn.Module):
    """Convolve, choose what to keep, scan, gate."""

    def __init__(self, width: int, layer: int, config: MambaConfig) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        inner = config.inner_width
        self.activation = ACTIVATIONS[config.activation]
        self.input = nn.Linear(width, 2 * inner, config.bias)
        self.convolution = nn.Parameter(torch.empty(inner, 1, config.taps))
        self.convolution_bias = (
            nn.Parameter(torch.empty(inner)) if config.convolution_bias else None
        )
        self.select = nn.Linear(inner, config.rank + 2 * config.states, bias=False)
        self.step = nn.Parameter(torch.empty(inner, config.rank))
        self.step_bias = nn.Parameter(torch.empty(inner))
        self.log_rate = nn.Parameter(torch.empty(inner, config.states))
        self.skip = nn.Parameter(torch.empty(inner))
        self.output = nn.Linear(inner, width, config.bias)

    @property
    def cache_shape(self) -> CarriedShape:
        """The last inputs of the convolution, and the states."""
        config = self.config
        return zeros((config.taps - 1, config.inner_width), (config.inner_width, config.states))

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what came before it, to (B, T, D)."""
        inputs, gate = self.input(hidden).chunk(2, -1)  # (B, T, I)
        return self.output(state.scan(self, inputs) * self.activation(gate))

    def recur(
        self, inputs: Tensor, carried: Carried, starts: Tensor | None
    ) -> tuple[Tensor, Carried]:
        """Outputs (n, C, I) of `inputs` (n, C, I); see `limner.nn.carried.Recurrence`."""
        past, states = carried
        joined, past = with_past(inputs, past)
        mixed = causal_convolution(joined, self.convolution, self.convolution_bias, starts)
        mixed = self.activation(mixed)
        outputs = []
        for begin in range(0, inputs.shape[1], CHUNK):
            chunk = slice(begin, begin + CHUNK)
            some, states = self._scan(
                mixed[:, chunk], states, None if starts is None else starts[:, chunk]
            )
            outputs.append(some)
        return torch.cat(outputs, 1), (past, states)

    def _scan(self, inputs: Tensor, states: Tensor, starts: Tensor | None) -> tuple[Tensor, Tensor]:
        """Outputs (n, C, I) of convolved inputs (n, C, I), and the states (n, I, S) after them."""
        config = self.config
        chosen = self.select(inputs).split([config.rank, config.states, config.states], -1)
        rank, write, read = chosen
        step = functional.softplus(functional.linear(rank, self.step, self.step_bias)).to(
            states.dtype
        )
        rate = -self.log_rate.to(states.dtype).exp()  # (I, S)
        decay = torch.exp(step[..., None] * rate)  # (n, C, I, S)
        if starts is not None:
            decay = decay.masked_fill(starts[..., None, None], 0)
        written = (step * inputs)[..., None] * write[:, :, None]
        history = linear_scan(decay, written, states)
        outputs = (history @ read[..., None].to(states.dtype))[..., 0]  # (n, C, I)
        return outputs.to(inputs.dtype) + inputs * self.skip, history[:, -1]

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """Rates 1 to S a channel, steps log-uniform from 0.001 to 0.1, as in the paper."""
        with torch.no_grad():
            rates = torch.arange(1, self.config.states + 1, device=self.log_rate.device)
            self.log_rate.copy_(rates.log().expand_as(self.log_rate))
            bound = self.config.rank**-0.5
            self.step.uniform_(-bound, bound, generator=generator)
            self.step_bias.copy_(inverse_softplus(log_uniform_steps(self.step_bias, generator)))
            self.skip.fill_(1.0)
            bound = 1 / math.sqrt(self.config.taps)
            self.convolution.uniform_(-bound, bound, generator=generator)
            if self.convolution_bias is not None:
                self.convolution_bias.zero_()


def log_uniform_steps(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Steps from 0.001 to 0.1, their logarithms uniform, in the shape of `like`."""
    low, high = math.log(0.001), math.log(0.1)
    return torch.empty_like(like).uniform_(low, high, generator=generator).exp()


def inverse_softplus(values: Tensor) -> Tensor:
    """What softplus turns into `values`."""
    return values + torch.log(-torch.expm1(-values))
