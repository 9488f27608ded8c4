"""Linear layers of 8 bits with a scale for each row, on devices that have no kernels of limner's.

The numbers are int8, or floats of 8 bits (e4m3: four bits of exponent, three of mantissa; FP8
Formats for Deep Learning, Micikevicius et al. 2022).

N outputs, K inputs, M tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

FLOAT8 = torch.float8_e4m3fn

#: The largest number of each format, which a row's largest weight becomes.
LARGEST = {FLOAT8: 448.0, torch.int8: 127.0}

#: GPUs from this capability on (Ada) multiply floats of 8 bits.
MULTIPLIES_FLOAT8 = (8, 9)

#: Both sizes of a matrix must be multiples of this to be multiplied in 8 bits.
MULTIPLE = 16


@dataclass(frozen=True)
class ScaledWeight:
    """A matrix whose values are `codes` (N, K), int8 or float8, times `scale` (N, 1).

    Files have scales for each `group` inputs of a row too, then `scale` is (N, K / group); layers
    compute with whole rows only.
    """

    codes: Tensor
    scale: Tensor
    group: int | None = None

    @property
    def numbers(self) -> int:
        """How many there are."""
        return self.codes.numel()

    @property
    def nbytes(self) -> int:
        """Memory."""
        return self.codes.nbytes + self.scale.nbytes

    @property
    def stored_bits(self) -> int:
        """What it takes on disk."""
        return 8 * self.nbytes

    def dequantize(self) -> Tensor:
        """The matrix as float32 (N, K)."""
        scale = self.scale.float()
        if self.group is not None:  # the last may be of fewer inputs
            scale = scale.repeat_interleave(self.group, 1)[:, : self.codes.shape[1]]
        return self.codes.float() * scale

    def rows(self, numbers: Tensor) -> ScaledWeight:
        """The rows of these numbers."""
        octets = self.codes.view(torch.uint8)[numbers]  # not every device takes rows of float8
        return ScaledWeight(octets.view(self.codes.dtype), self.scale[numbers], self.group)


def joined(weights: list[ScaledWeight]) -> ScaledWeight:
    """Matrices of the same inputs and numbers as one, the rows of the first first."""
    octets = torch.cat([weight.codes.view(torch.uint8) for weight in weights])
    scale = torch.cat([weight.scale for weight in weights])
    return ScaledWeight(octets.view(weights[0].codes.dtype), scale, weights[0].group)


def round_rows(matrix: Tensor, dtype: torch.dtype = FLOAT8) -> ScaledWeight:
    """`matrix` (N, K) in int8 or float8, the largest of each row as the largest number there is.

    Also for activations, whose rows are tokens. What is not finite stays so.
    """
    largest = LARGEST[dtype]
    wide = matrix.detach().float()
    # A row of zeros has some scale too; none is so small that its inverse is infinite.
    peak = wide.abs().amax(1, keepdim=True)
    scale = (peak / largest).clamp(min=torch.finfo(torch.float32).tiny)  # (N, 1)
    codes = (wide / scale).clamp(-largest, largest)
    return ScaledWeight((codes.round() if dtype == torch.int8 else codes).to(dtype), scale)


def multiplies_float8(device: torch.device) -> bool:
    """Whether a device has units for products of float8: NVIDIA's of capability 8.9 and later."""
    if device.type != "cuda" or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device) >= MULTIPLIES_FLOAT8


class ScaledLinear(nn.Module):
    """A linear layer over a matrix of 8 bits with a scale for each row.

    `rounds_activations` says whether activations in bfloat16 meet a float8 matrix in float8 too,
    rounded token by token, so that a token's answer depends on no other: as long as it is on a
    device that multiplies such, and nobody asks for gradients. Otherwise activations keep their
    numbers, and the matrix is widened to theirs; a compiler for GPUs does that while it multiplies.
    """

    codes: Tensor
    scale: Tensor

    def __init__(self, weight: ScaledWeight, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        assert weight.group is None
        self.out_features, self.in_features = weight.codes.shape
        self.register_buffer("codes", weight.codes)
        self.register_buffer("scale", weight.scale.float().contiguous())
        self.bias = bias
        self.rounds_activations = self._multiplies_float8()

    def _multiplies_float8(self) -> bool:
        whole = not (self.in_features % MULTIPLE or self.out_features % MULTIPLE)
        return whole and self.codes.dtype == FLOAT8 and multiplies_float8(self.codes.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        move: Callable[..., Self] = super()._apply  # PyTorch gives it no types
        move(fn, recurse)
        self.rounds_activations = self._multiplies_float8()  # it may have come to another device
        return self

    @property
    def weight(self) -> ScaledWeight:
        """The matrix."""
        return ScaledWeight(self.codes, self.scale)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `hidden` (..., K) to (..., N), in its dtype."""
        suits = hidden.dtype == torch.bfloat16 and not hidden.requires_grad
        if self.rounds_activations and suits:
            mapped = multiply_rounded(hidden, self.weight)
        else:
            mapped = multiply_widened(hidden, self.weight)
        return mapped if self.bias is None else mapped + self.bias

    def extra_repr(self) -> str:
        """Sizes and numbers, for print(network)."""
        return f"{self.in_features}, {self.out_features}, {describe(self.weight)}"


def multiply_widened(hidden: Tensor, weight: ScaledWeight) -> Tensor:
    """`hidden` (..., K) times a matrix (N, K) that is widened to its dtype, (..., N)."""
    if hidden.dtype == torch.float16:
        # Sums of unscaled numbers would leave its range.
        matrix = widened(weight.codes, torch.float32) * weight.scale
        return functional.linear(hidden, matrix.to(hidden.dtype))
    product = functional.linear(hidden, widened(weight.codes, hidden.dtype))
    return (product * weight.scale.squeeze(1)).to(hidden.dtype)


def widened(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of 8 bits in a wider dtype, which holds them exactly."""
    if codes.dtype != FLOAT8 or codes.device.type != "cpu":
        return codes.to(dtype)
    # PyTorch takes 20 times as long. The bits are those of a half, but for an exponent that is
    # less by 8; of the two codes for NaN they make 480.
    bits = codes.view(torch.int8).to(torch.int16)
    bits = bits.bitwise_left_shift_(7).bitwise_and_(~(1 << 14))
    return bits.view(torch.float16).to(dtype).mul_(256)


def multiply_rounded(hidden: Tensor, weight: ScaledWeight) -> Tensor:
    """`hidden` (..., K) rounded to float8 token by token, times a float8 matrix (N, K): (..., N).

    The answer has the dtype of `hidden`; on GPUs that must be bfloat16.
    """
    # Units of GPUs read tokens one behind another, and the matrix as its transpose lies here.
    tokens = round_rows(hidden.reshape(-1, hidden.shape[-1]).contiguous())  # (M, K)
    product = torch._scaled_mm(  # (M, N)
        tokens.codes, weight.codes.t(), tokens.scale, weight.scale.t(), out_dtype=hidden.dtype
    )
    return product.view(*hidden.shape[:-1], len(weight.codes))


def describe(weight: ScaledWeight) -> str:
    """How a matrix keeps its numbers."""
    return "8-bit floats by rows" if weight.codes.dtype == FLOAT8 else "8 bits by rows"


def scaled_weights(network: nn.Module) -> Iterator[tuple[str, ScaledWeight]]:
    """The matrices of scaled layers with their names."""
    for name, module in network.named_modules():
        if isinstance(module, ScaledLinear):
            yield f"{name}.weight", module.weight
