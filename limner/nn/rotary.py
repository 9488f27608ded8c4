"""Rotary positions (Su et al. 2021) and the ways of stretching them to longer contexts.

B batch, T time, H heads, W head width, R rotated part of the head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from limner import kernels
from limner.nn.scoring import Relation

#: Asks for the length of the text that each token stands in, (B, T), on the CPU.
Lengths = Callable[[], Tensor]


@dataclass(frozen=True)
class Linear:
    """Positions divided by `factor` (Chen et al. 2023)."""

    factor: float
    by_length: ClassVar[bool] = False

    def frequencies(self, rotary: RotaryConfig, lengths: Lengths) -> Tensor:
        """Rotations a position, (R/2,)."""
        return plain_frequencies(rotary.theta, rotary.width) / self.factor

    @property
    def gain(self) -> float:
        """What cosines and sines are multiplied by."""
        return 1.0


@dataclass(frozen=True)
class DynamicNTK:
    """The base grows with the text once it is longer than `context` (bloc97 2023)."""

    factor: float
    context: int
    by_length: ClassVar[bool] = True

    def frequencies(self, rotary: RotaryConfig, lengths: Lengths) -> Tensor:
        """Rotations a position in texts of such lengths, (B, T, R/2)."""
        longer = lengths().clamp(min=self.context) / self.context
        growth = self.factor * longer - (self.factor - 1)
        base = rotary.theta * growth ** (rotary.width / (rotary.width - 2))
        return plain_frequencies(base[..., None], rotary.width)

    @property
    def gain(self) -> float:
        """What cosines and sines are multiplied by."""
        return 1.0


@dataclass(frozen=True)
class Llama3:
    """Slow rotations divided by `factor`, fast ones kept, a ramp between (Dubey et al. 2024)."""

    factor: float
    low: float
    high: float
    context: int
    by_length: ClassVar[bool] = False

    def frequencies(self, rotary: RotaryConfig, lengths: Lengths) -> Tensor:
        """Rotations a position, (R/2,)."""
        frequency = plain_frequencies(rotary.theta, rotary.width)
        turns = self.context * frequency / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return frequency * (kept + (1 - kept) / self.factor)

    @property
    def gain(self) -> float:
        """What cosines and sines are multiplied by."""
        return 1.0


@dataclass(frozen=True)
class YaRN:
    """Interpolate slow rotations only, and sharpen the softmax (Peng et al. 2023)."""

    factor: float
    context: int
    fast: float = 32.0
    slow: float = 1.0
    gain: float = 1.0
    truncate: bool = True
    by_length: ClassVar[bool] = False

    def frequencies(self, rotary: RotaryConfig, lengths: Lengths) -> Tensor:
        """Rotations a position, (R/2,)."""
        frequency = plain_frequencies(rotary.theta, rotary.width)
        first, last = self.dimension(rotary, self.fast), self.dimension(rotary, self.slow)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, rotary.width - 1)
        ramp = (torch.arange(len(frequency)) - first) / max(last - first, 0.001)
        stretched = ramp.clamp(0, 1)
        return frequency * (1 - stretched) + frequency / self.factor * stretched

    def dimension(self, rotary: RotaryConfig, turns: float) -> float:
        """The pair of dimensions that makes `turns` rotations over the trained context."""
        ratio = math.log(self.context / (turns * 2 * math.pi)) / math.log(rotary.theta)
        return rotary.width * ratio / 2


@dataclass(frozen=True)
class LongRope:
    """A searched factor for each pair of dimensions, others past `context` (Ding et al. 2024)."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    context: int
    gain: float = 1.0

    @property
    def by_length(self) -> bool:
        """Whether frequencies depend on the length of the text."""
        return self.short != self.long

    def frequencies(self, rotary: RotaryConfig, lengths: Lengths) -> Tensor:
        """Rotations a position, (R/2,), or in texts of such lengths, (B, T, R/2)."""
        if not self.by_length:
            return plain_frequencies(rotary.theta, rotary.width) / torch.tensor(self.long)
        long, short = (torch.tensor(factors) for factors in (self.long, self.short))
        factors = torch.where(lengths()[..., None] > self.context, long, short)
        return plain_frequencies(rotary.theta, rotary.width) / factors


def magnitude(factor: float, weight: float = 1.0) -> float:
    """How much YaRN sharpens the softmax for a context `factor` times longer."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


Scaling = Linear | DynamicNTK | Llama3 | YaRN | LongRope


@dataclass(frozen=True)
class RotaryConfig:
    """Base, rotated width, pairing and stretching.

    `width` may be less than the head width: the rest is left alone (partial rotation).
    `interleaved` pairs neighbours (0, 1), (2, 3) ... as in the paper; otherwise dimension i is
    paired with i + R/2.
    """

    width: int
    theta: float = 10_000.0
    interleaved: bool = False
    scaling: Scaling | None = None

    def angles(self, positions: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """Cosines and sines, each (B, T, R/2), for `positions` (B, T)."""
        gain = self.scaling.gain if self.scaling else 1.0
        return kernels.rotary_angles(positions, self.frequencies(positions.device, lengths), gain)

    def frequencies(self, device: torch.device, lengths: Lengths) -> Tensor:
        """Radians a position, (R/2,), or (B, T, R/2) if they depend on the text's length."""
        if self.scaling is not None and self.scaling.by_length:
            return self.scaling.frequencies(self, lengths).to(device)
        if (self, device) not in _FIXED:
            _FIXED[self, device] = _fixed_frequencies(self, device)
        return _FIXED[self, device]


#: Frequencies that do not depend on the text, by device. Not a cached function: torch.compile looks
#: inside one, and its program would bring them to the device anew each time.
_FIXED: dict[tuple[RotaryConfig, torch.device], Tensor] = {}


def _fixed_frequencies(rotary: RotaryConfig, device: torch.device) -> Tensor:
    """Radians a position, (R/2,), where they do not depend on the text."""
    # A tensor made while only inferring could not take part in training later.
    with torch.inference_mode(False), torch.no_grad():
        if rotary.scaling is None:
            return plain_frequencies(rotary.theta, rotary.width).to(device)
        return rotary.scaling.frequencies(rotary, _no_lengths).to(device)


def _no_lengths() -> Tensor:
    raise AssertionError("frequencies that depend on the text's length are not fixed")


def plain_frequencies(theta: float | Tensor, width: int) -> Tensor:
    """theta^(-2i/R) for each pair i of `width` = R dimensions, (R/2,)."""
    return 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width)


def rotate(heads: Tensor, cosine: Tensor, sine: Tensor, interleaved: bool) -> Tensor:
    """Turn each pair of the first R dimensions of `heads` (B, T, H, W) by its angle (B, T, R/2)."""
    return kernels.rotate(heads, cosine.to(heads.dtype), sine.to(heads.dtype), interleaved)


@dataclass
class Positions:
    """Where the tokens of one forward pass stand; angles are worked out once for all layers."""

    index: Tensor  # (B, T) int64
    relative: Relation | None = None  # the bias by distance that the layers of a stack share
    distances: Tensor | None = None  # (2R, D): the vectors of distances that they share
    lengths: Lengths | None = None  # of the tokens' texts; a row each, up to here, if not given
    _angles: dict[RotaryConfig, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def angles(self, rotary: RotaryConfig) -> tuple[Tensor, Tensor]:
        """Cosines and sines of `rotary` at these positions."""
        if rotary not in self._angles:
            self._angles[rotary] = rotary.angles(self.index, self.lengths or self._rows)
        return self._angles[rotary]

    def _rows(self) -> Tensor:
        return (self.index.max(1, keepdim=True).values + 1).expand_as(self.index).cpu()
