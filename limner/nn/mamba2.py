"""Mamba-2's mixer: state-space duality (Dao and Gu 2024).

n texts, C tokens of each, D width, H heads, P head width, I = H P inner width, G groups, S states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.kernels.activations import ACTIVATIONS, Activation
from limner.nn.carried import Carried, CarriedShape, zeros
from limner.nn.linear_attention import decayed_attention
from limner.nn.mamba import inverse_softplus, log_uniform_steps
from limner.nn.rotary import Positions
from limner.nn.state import State
from limner.nn.windows import causal_convolution, with_past


@dataclass(frozen=True)
class Mamba2Config:
    """Heads, their width, states; `groups` of heads share what is written and read.

    `step_limit` bounds the steps; `epsilon` is of the norm after the gate.
    """

    heads: int
    head_width: int
    states: int = 128
    groups: int = 1
    taps: int = 4
    bias: bool = False
    convolution_bias: bool = True
    activation: Activation = "silu"
    step_limit: tuple[float, float] = (0.0, math.inf)
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.heads % self.groups:
            raise ValueError(
                f"{self.heads} heads cannot form {self.groups} equal groups: "
                f"choose a divisor of {self.heads}"
            )

    @property
    def inner_width(self) -> int:
        """All heads side by side."""
        return self.heads * self.head_width

    @property
    def convolved_width(self) -> int:
        """What the convolution sees: values, and what each group writes and reads."""
        return self.inner_width + 2 * self.groups * self.states

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return Mamba2(width, layer, self)


class Mamba2(nn.Module):
    """Convolve, scan each head with one decay, gate and normalise."""

    def __init__(self, width: int, layer: int, config: Mamba2Config) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        convolved, heads = config.convolved_width, config.heads
        self.activation = ACTIVATIONS[config.activation]
        self.input = nn.Linear(width, config.inner_width + convolved + heads, config.bias)
        self.convolution = nn.Parameter(torch.empty(convolved, 1, config.taps))
        self.convolution_bias = (
            nn.Parameter(torch.empty(convolved)) if config.convolution_bias else None
        )
        self.step_bias = nn.Parameter(torch.empty(heads))
        self.log_rate = nn.Parameter(torch.empty(heads))
        self.skip = nn.Parameter(torch.empty(heads))
        self.gain = nn.Parameter(torch.ones(config.inner_width))
        self.output = nn.Linear(config.inner_width, width, config.bias)

    @property
    def cache_shape(self) -> CarriedShape:
        """The last inputs of the convolution, and each head's matrix."""
        config = self.config
        return zeros(
            (config.taps - 1, config.convolved_width),
            (config.heads, config.states, config.head_width),
        )

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what came before it, to (B, T, D)."""
        gate, inputs = self.input(hidden).tensor_split([self.config.inner_width], -1)
        mixed = state.scan(self, inputs)  # (B, T, I)
        return self.output(self.normalise(mixed * self.activation(gate)))

    def normalise(self, mixed: Tensor) -> Tensor:
        """Divide each group of (B, T, I) by its root mean square, then scale."""
        groups = mixed.unflatten(-1, (self.config.groups, -1))
        normal = functional.rms_norm(groups, groups.shape[-1:], None, self.config.epsilon)
        return normal.flatten(-2) * self.gain

    def recur(
        self, inputs: Tensor, carried: Carried, starts: Tensor | None
    ) -> tuple[Tensor, Carried]:
        """Outputs (n, C, I) of values, writes, reads and steps side by side (n, C, I + 2 G S + H).

        See `limner.nn.carried.Recurrence`.
        """
        config, (past, states) = self.config, carried
        convolved, step = inputs.tensor_split([config.convolved_width], -1)
        joined, past = with_past(convolved, past)
        mixed = causal_convolution(joined, self.convolution, self.convolution_bias, starts)
        sizes = [config.inner_width] + [config.groups * config.states] * 2
        value, write, read = self.activation(mixed).to(states.dtype).split(sizes, -1)
        value = value.unflatten(-1, (config.heads, -1))  # (n, C, H, P)
        write, read = (
            tensor.unflatten(-1, (config.groups, -1)).repeat_interleave(
                config.heads // config.groups, 2
            )
            for tensor in (write, read)
        )  # (n, C, H, S)
        step = functional.softplus(step + self.step_bias).to(states.dtype)
        step = step.clamp(*config.step_limit)  # (n, C, H)
        log_decay = -step * self.log_rate.to(states.dtype).exp()
        written = value * step[..., None]
        outputs, states = decayed_attention(read, write, written, log_decay, states, starts)
        outputs = outputs + value * self.skip[:, None]
        return outputs.flatten(-2).to(inputs.dtype), (past, states)

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """Rates 1 to H, steps log-uniform from 0.001 to 0.1, as in the paper's code."""
        with torch.no_grad():
            rates = torch.arange(1, self.config.heads + 1, device=self.log_rate.device)
            self.log_rate.copy_(rates.log())
            self.step_bias.copy_(inverse_softplus(log_uniform_steps(self.step_bias, generator)))
            self.skip.fill_(1.0)
            self.gain.fill_(1.0)
            bound = 1 / math.sqrt(self.config.taps)
            self.convolution.uniform_(-bound, bound, generator=generator)
            if self.convolution_bias is not None:
                self.convolution_bias.zero_()
