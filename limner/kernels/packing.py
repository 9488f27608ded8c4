"""Weights in the form the kernels read: 8 or 4 bits in groups of 32, interleaved by 16 rows.

N outputs, K inputs, G = K / 32 groups, P = N padded to a multiple of 32, in P / 16 blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

GROUP = 32
BLOCK = 16
#: Kernels work on two blocks at a time.
PANEL = 32

#: The low nibble of each byte of a word.
_LOW = 0x0F0F0F0F

GGUFKind = Literal["Q8_0", "Q4_0", "Q4_1"]
_GGUF_BYTES: dict[GGUFKind, int] = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}


@dataclass(frozen=True)
class PackedWeight:
    """A matrix (N, K) in 8 or 4 bits.

    `codes` uint8 (P/16, K/4, 16, 4) of 8 bits (code + 128), or (P/16, K/8, 16, 4) of 4 bits: in the
    low nibbles inputs k to k+3, in the high ones k+4 to k+7. `scales` float16 (P/16, G, 16), or
    with a minimum (P/16, G, 2, 16). A value is scale * code at 8 bits, scale * (nibble - 8) at 4,
    scale * nibble + minimum at 4 with a minimum: the numbers of GGUF's Q8_0, Q4_0 and Q4_1.
    """

    codes: Tensor
    scales: Tensor
    outputs: int

    @property
    def inputs(self) -> int:
        """K."""
        return self.scales.shape[1] * GROUP

    @property
    def bits(self) -> int:
        """8 or 4."""
        return 8 * self.codes.shape[1] * 4 // self.inputs

    @property
    def has_minimum(self) -> bool:
        """Whether groups have a minimum beside their scale."""
        return self.scales.dim() == 4

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self) -> Tensor:
        """The matrix as float32 (N, K)."""
        return unpack(self.codes, self.scales, self.outputs)


def unpack(codes: Tensor, scales: Tensor, outputs: int) -> Tensor:
    """What packed `codes` and `scales` stand for, float32 (N, K); see PackedWeight."""
    blocks, groups = scales.shape[:2]
    halves = scales.float().view(blocks, groups, -1, BLOCK)
    if codes.shape[1] == groups * 8:
        values = codes.float() - 128  # (P/16, K/4, 16, 4)
    else:
        nibbles = torch.stack((codes & 15, codes >> 4), 2)  # (P/16, K/8, 2, 16, 4)
        values = nibbles.flatten(1, 2).float() - (0 if scales.dim() == 4 else 8)
    values = values.view(blocks, groups, 8, BLOCK, 4) * halves[:, :, 0, None, :, None]
    if scales.dim() == 4:
        values = values + halves[:, :, 1, None, :, None]
    return values.permute(0, 3, 1, 2, 4).reshape(blocks * BLOCK, groups * GROUP)[:outputs]


def quantize(weight: Tensor, bits: Literal[8, 4] = 8, minimum: bool = False) -> PackedWeight:
    """Round `weight` (N, K) to nearest in groups of 32, as GGUF's Q8_0, Q4_0 or Q4_1 do.

    Raises ValueError if K is no multiple of 32 or a value is not finite.
    """
    groups = _groups(weight)
    if not groups.isfinite().all():
        raise ValueError("cannot quantize a weight that holds infinities or NaN: check its source")
    if bits == 8:
        scale = groups.abs().amax(-1, keepdim=True) / 127
        return pack(_rounded(groups, scale, -127, 127).to(torch.int8), scale.half().squeeze(-1))
    if minimum:
        low = groups.amin(-1, keepdim=True)
        scale = (groups.amax(-1, keepdim=True) - low) / 15
        codes = _rounded(groups - low, scale, 0, 15).to(torch.uint8)
        return pack(codes, scale.half().squeeze(-1), low.half().squeeze(-1))
    # The value of largest magnitude, with its sign, becomes code -8: all 16 codes are used.
    peak = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = peak / -8
    return pack(_rounded(groups, scale, -8, 7).to(torch.int8), scale.half().squeeze(-1), bits=4)


def _groups(weight: Tensor) -> Tensor:
    if weight.dim() != 2 or weight.shape[1] % GROUP:
        raise ValueError(
            f"a weight of shape {tuple(weight.shape)} cannot be cut into groups of {GROUP} inputs: "
            f"its second size must be a multiple of {GROUP}"
        )
    return weight.detach().float().view(weight.shape[0], -1, GROUP)


def _rounded(values: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    # By the scale before it is rounded to half, as GGUF's writers do.
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    inverse = torch.where(inverse.isfinite(), inverse, 0.0)
    return (values * inverse).round().clamp(low, high)


def from_gguf(blocks: Tensor, kind: GGUFKind) -> PackedWeight:
    """Pack the raw blocks of a GGUF tensor, uint8 (N, bytes a row), with no second rounding.

    Raises ValueError if the row size is no multiple of the kind's block size.
    """
    size = _GGUF_BYTES[kind]
    if blocks.dim() != 2 or blocks.dtype != torch.uint8 or blocks.shape[1] % size:
        raise ValueError(
            f"{kind} rows are uint8 in blocks of {size} bytes, but the tensor is {blocks.dtype} "
            f"of shape {tuple(blocks.shape)}"
        )
    parts = blocks.view(blocks.shape[0], -1, size)  # (N, G, bytes)
    scale = _halves(parts, 0)
    if kind == "Q8_0":
        return pack(parts[..., 2:].view(torch.int8), scale)
    # Four nibbles at a time, as the words of int32.
    words = parts[..., 2 if kind == "Q4_0" else 4 :].contiguous().view(torch.int32)  # (N, G, 4)
    codes = torch.cat((words & _LOW, words >> 4 & _LOW), -1).view(torch.uint8)  # (N, G, 32)
    if kind == "Q4_1":
        return pack(codes, scale, _halves(parts, 2))
    return pack(codes.view(torch.int8) - 8, scale, bits=4)


def _halves(parts: Tensor, start: int) -> Tensor:
    return parts[..., start : start + 2].contiguous().view(torch.float16).squeeze(-1)  # (N, G)


def pack(
    codes: Tensor, scale: Tensor, minimum: Tensor | None = None, bits: Literal[8, 4] = 8
) -> PackedWeight:
    """Interleave codes (N, G, 32) and their scales (N, G).

    `codes` are int8 of 8 bits, int8 from -8 to 7 for `bits` 4, or uint8 up to 15 with a `minimum`
    (N, G).
    """
    outputs = codes.shape[0]
    padding = -outputs % PANEL
    scales = scale if minimum is None else torch.stack((scale, minimum), -1)  # (N, G[, 2])
    scales = _by_block(_padded(scales, padding)).movedim(1, -1)  # (P/16, G[, 2], 16)
    if minimum is None and bits == 8:
        words = _words(codes.view(torch.uint8) ^ 128, padding, 128)  # (P, K/4)
    else:
        unsigned = codes if minimum is not None else (codes + 8).view(torch.uint8)
        pairs = _words(unsigned, padding, 0 if minimum is not None else 8)
        low, high = pairs.unflatten(1, (-1, 2)).unbind(2)  # (P, K/8) each
        words = low | high << 4  # no byte of `high` has more than 4 bits, so none runs over
    interleaved = _by_block(words).transpose(1, 2).contiguous()  # (P/16, K/4 or K/8, 16)
    stored = interleaved[..., None].view(torch.uint8)  # (P/16, K/4 or K/8, 16, 4)
    return PackedWeight(stored, scales.contiguous(), outputs)


def _padded(values: Tensor, rows: int, fill: int = 0) -> Tensor:
    padding = [0, 0] * (values.dim() - 1) + [0, rows]
    return functional.pad(values, padding, value=fill) if rows else values


def _by_block(values: Tensor) -> Tensor:
    blocks: Tensor = values.unflatten(0, (-1, BLOCK))
    return blocks


def _words(codes: Tensor, padding: int, fill: int) -> Tensor:
    """Four codes a word, which moves them four at a time: (N, G, 32) as int32 (P, K/4)."""
    return _padded(codes, padding, fill).contiguous().view(torch.int32).flatten(1)


@dataclass(frozen=True)
class PackedFloats:
    """A matrix (N, K) in float32 or bfloat16, `values` (P/16, K, 16)."""

    values: Tensor
    outputs: int

    @property
    def inputs(self) -> int:
        """K."""
        return self.values.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.values.nbytes

    def dequantize(self) -> Tensor:
        """The matrix as float32 (N, K)."""
        return unpack_floats(self.values, self.outputs)


def unpack_floats(values: Tensor, outputs: int) -> Tensor:
    """What interleaved `values` (P/16, K, 16) stand for, float32 (N, K)."""
    return values.transpose(1, 2).flatten(0, 1)[:outputs].float()


def pack_floats(weight: Tensor) -> PackedFloats:
    """Interleave a float32 or bfloat16 `weight` (N, K).

    Raises ValueError for another type.
    """
    if weight.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"cannot pack a weight of {weight.dtype}: use float32 or bfloat16")
    outputs = weight.shape[0]
    padded = _by_block(_padded(weight.detach(), -outputs % PANEL))  # (P/16, 16, K)
    return PackedFloats(padded.transpose(1, 2).contiguous(), outputs)
