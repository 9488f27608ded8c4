"""Weights in the form the kernels read: 8, 6 or 4 bits in groups of 32, interleaved by 16 rows.

N outputs, K inputs, G = K / 32 groups, P = N padded to a multiple of 32, in P / 16 blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

GROUP = 32
BLOCK = 16
#: Kernels work on two blocks at a time.
PANEL = 32

#: Bytes packed at a time, so that what a large matrix needs meanwhile is a small part of it.
_SLAB = 1 << 20

#: The low nibble of each byte of a word.
_LOW = 0x0F0F0F0F

#: Groups whose scales are themselves small integers times one of two halves, as in GGUF's Q4_K.
SUPER_GROUPS = 8
#: Bytes of the scales of 16 rows of a super-block with minima; without (Q6_K) it is 288.
_SUPER_MINIMUM = 320

GGUFKind = Literal["Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]
_GGUF_BYTES: dict[GGUFKind, int] = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20, "Q4_K": 144, "Q6_K": 210}


@dataclass(frozen=True)
class PackedWeight:
    """A matrix (N, K) in 8, 6 or 4 bits.

    `codes` uint8 (P/16, K/4, 16, 4) of 8 bits (code + 128), or (P/16, K/8, 16, 4) of 4 bits: in the
    low nibbles inputs k to k+3, in the high ones k+4 to k+7; of 6 bits (P/16, 3K/16, 16, 4): for
    each group 4 of nibbles and 2 of the upper bits. `scales` float16 (P/16, G, 16), or with a
    minimum (P/16, G, 2, 16). A value is scale * code at 8 bits, scale * (nibble - 8) at 4, scale *
    nibble + minimum at 4 with a minimum: the numbers of GGUF's Q8_0, Q4_0 and Q4_1. Or `scales`
    uint8 (P/16, G/8, 320) or (P/16, G/8, 288) of super-blocks of 256 inputs, the numbers of Q4_K
    and Q6_K: see cpp/packed_weights.h.
    """

    codes: Tensor
    scales: Tensor
    outputs: int

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.outputs, self.inputs

    @property
    def inputs(self) -> int:
        """K."""
        return inputs_of(self.scales)

    @property
    def bits(self) -> int:
        """8, 6 or 4."""
        return bits_of(self.codes, self.scales)

    @property
    def has_minimum(self) -> bool:
        """Whether groups have a minimum beside their scale."""
        return has_minimum(self.scales)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.codes.nbytes + self.scales.nbytes

    def dequantize(self) -> Tensor:
        """The matrix as float32 (N, K)."""
        return unpack(self.codes, self.scales, self.outputs)

    def take(self, rows: Tensor) -> PackedWeight:
        """The rows of these numbers (n,), int64, in their order."""
        padded = _padded(rows, -len(rows) % PANEL)
        block, lane = padded // BLOCK, padded % BLOCK
        codes = _by_block(self.codes[block, :, lane]).transpose(1, 2)  # (P/16, n, 16, 4)
        parts = [
            _by_block(part[block, ..., lane]).movedim(1, -1) for part in _scale_parts(self.scales)
        ]
        scales = parts[0] if len(parts) == 1 else _super_scales(*parts)
        return PackedWeight(codes.contiguous(), scales.contiguous(), len(rows))


def inputs_of(scales: Tensor) -> int:
    """K of packed `scales`."""
    return scales.shape[1] * GROUP * (SUPER_GROUPS if scales.dtype == torch.uint8 else 1)


def bits_of(codes: Tensor, scales: Tensor) -> int:
    """Bits of a code."""
    return 8 * codes.shape[1] * 4 // inputs_of(scales)


def has_minimum(scales: Tensor) -> bool:
    """Whether groups have a minimum beside their scale."""
    return scales.dim() == 4 or scales.shape[-1] == _SUPER_MINIMUM


def scale_form(scales: Tensor) -> int:
    """Which form of packed `scales` it is, as the C functions number them."""
    return 2 if scales.dtype == torch.uint8 else int(scales.dim() == 4)


def unpack(codes: Tensor, scales: Tensor, outputs: int) -> Tensor:
    """What packed `codes` and `scales` stand for, float32 (N, K); see PackedWeight."""
    blocks, groups = scales.shape[0], inputs_of(scales) // GROUP
    values = _unpack_codes(codes, bits_of(codes, scales), has_minimum(scales))
    values = values.view(blocks, groups, 8, BLOCK, 4)
    scale, minimum = _unpack_scales(scales)  # (P/16, G, 1 or 2, 16)
    each = 8 // scale.shape[2]  # steps of four inputs with one scale
    values = values * scale.repeat_interleave(each, 2).unsqueeze(-1)
    if minimum is not None:
        values = values + minimum.unsqueeze(-1)
    return values.permute(0, 3, 1, 2, 4).reshape(blocks * BLOCK, groups * GROUP)[:outputs]


def _unpack_codes(codes: Tensor, bits: int, minimum: bool) -> Tensor:
    """Signed codes, or nibbles where there is a minimum, float32 (P/16, K/4, 16, 4)."""
    if bits == 8:
        return codes.float() - 128
    if bits == 6:
        stored: Tensor = codes.unflatten(1, (-1, 6))  # (P/16, G, 6, 16, 4)
        shifts = torch.arange(0, 8, 2, dtype=torch.uint8).view(4, 1, 1)
        upper = (stored[:, :, 4:, None] >> shifts & 3).flatten(2, 3)  # (P/16, G, 8, 16, 4)
        nibbles = _unpack_nibbles(stored[:, :, :4].flatten(1, 2))  # (P/16, K/4, 16, 4)
        return (nibbles | upper.flatten(1, 2) << 4).float() - 32
    return _unpack_nibbles(codes).float() - (0 if minimum else 8)


def _unpack_nibbles(codes: Tensor) -> Tensor:
    """Two steps of each: (P/16, n, 16, 4) as (P/16, 2n, 16, 4)."""
    return torch.stack((codes & 15, codes >> 4), 2).flatten(1, 2)


def _unpack_scales(scales: Tensor) -> tuple[Tensor, Tensor | None]:
    """Scales and minima of each group or half of it, float32 (P/16, G, 1 or 2, 16)."""
    if scales.dtype != torch.uint8:
        rows = scales.float().view(*scales.shape[:2], -1, BLOCK)
        return rows[:, :, :1], rows[:, :, 1:] if scales.dim() == 4 else None
    halves, small = _scale_parts(scales)
    factors = halves.float().unsqueeze(2)  # (P/16, G/8, 1, 1 or 2, 16)
    if not has_minimum(scales):
        return (factors * small.view(torch.int8)).flatten(1, 2), None
    products = (factors * small).flatten(1, 2)  # (P/16, G, 2, 16)
    return products[:, :, :1], -products[:, :, 1:]


def _scale_parts(scales: Tensor) -> list[Tensor]:
    """Tensors whose last dimension is the row of a block.

    Of super-blocks the halves (P/16, G/8, 1 or 2, 16) and the small scales (P/16, G/8, 8, 2, 16).
    """
    if scales.dtype != torch.uint8:
        return [scales]
    start = scales.shape[-1] - SUPER_GROUPS * 2 * BLOCK
    halves = scales[..., :start].contiguous().view(torch.float16).unflatten(-1, (-1, BLOCK))
    return [halves, scales[..., start:].unflatten(-1, (SUPER_GROUPS, 2, BLOCK))]


def _super_scales(halves: Tensor, small: Tensor) -> Tensor:
    """The way back from `_scale_parts`."""
    return torch.cat((halves.contiguous().view(torch.uint8).flatten(2), small.flatten(2)), -1)


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
    slabs = blocks.split(max(_SLAB // max(blocks.shape[1], 1) // PANEL, 1) * PANEL)
    packed = (_from_parts(slab.unflatten(1, (-1, size)), kind) for slab in slabs)
    return next(packed) if len(slabs) == 1 else _stacked(packed, blocks.shape[0])


def _stacked(slabs: Iterable[PackedWeight], outputs: int) -> PackedWeight:
    """A matrix of `outputs` rows from `slabs`, all but the last of which are whole panels."""
    blocks, place = -(-outputs // PANEL) * PANEL // BLOCK, 0
    for slab in slabs:
        if not place:
            codes = slab.codes.new_empty(blocks, *slab.codes.shape[1:])
            scales = slab.scales.new_empty(blocks, *slab.scales.shape[1:])
        end = place + len(slab.codes)
        codes[place:end], scales[place:end] = slab.codes, slab.scales
        place = end
    return PackedWeight(codes, scales, outputs)


def _from_parts(parts: Tensor, kind: GGUFKind) -> PackedWeight:
    """Pack blocks (N, G, bytes)."""
    if kind == "Q4_K":
        return _from_q4_k(parts)
    if kind == "Q6_K":
        return _from_q6_k(parts)
    scale = _halves(parts, 0)
    if kind == "Q8_0":
        return pack(parts[..., 2:].view(torch.int8), scale)
    # Four nibbles at a time, as the words of int32.
    words = parts[..., 2 if kind == "Q4_0" else 4 :].contiguous().view(torch.int32)  # (N, G, 4)
    codes = torch.cat((words & _LOW, words >> 4 & _LOW), -1).view(torch.uint8)  # (N, G, 32)
    if kind == "Q4_1":
        return pack(codes, scale, _halves(parts, 2))
    return pack(codes.view(torch.int8) - 8, scale, bits=4)


def _from_q4_k(parts: Tensor) -> PackedWeight:
    """`parts` (N, K/256, 144): two halves, twelve bytes of 6-bit scales and minima, nibbles."""
    first_scales, first_minima, mixed = parts[..., 4:16].split(4, dim=-1)  # (N, K/256, 4) each
    scale = torch.cat((first_scales & 63, mixed & 15 | first_scales >> 6 << 4), -1)
    minimum = torch.cat((first_minima & 63, mixed >> 4 | first_minima >> 6 << 4), -1)
    nibbles = parts[..., 16:].unflatten(-1, (4, 32))  # 64 inputs: low nibbles, then high ones
    codes = torch.stack((nibbles & 15, nibbles >> 4), -2)  # (N, K/256, 4, 2, 32)
    factors = (_halves(parts, 0), _halves(parts, 2))
    return _pack_super(codes.flatten(1, 3), factors, torch.stack((scale, minimum), -1))


def _from_q6_k(parts: Tensor) -> PackedWeight:
    """`parts` (N, K/256, 210): 4 lower bits, 2 upper bits, 16 scales of a byte, a half."""
    low = parts[..., :128].unflatten(-1, (2, 1, 64))
    nibbles = torch.cat((low & 15, low >> 4), -2)  # (N, K/256, 2, 2, 64)
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8).view(4, 1)
    upper = parts[..., 128:192].unflatten(-1, (2, 1, 32)) >> shifts & 3  # (N, K/256, 2, 4, 32)
    codes = (nibbles.flatten(2) | upper.flatten(2) << 4).unflatten(-1, (8, 32))
    scale = parts[..., 192:208].unflatten(-1, (8, 2))
    return _pack_super(codes.flatten(1, 2), (_halves(parts, 208),), scale, bits=6)


def _pack_super(
    codes: Tensor, factors: tuple[Tensor, ...], scale: Tensor, bits: Literal[4, 6] = 4
) -> PackedWeight:
    """Interleave codes (N, G, 32), halves (N, G/8) and bytes of scales (N, G/8, 8, 2)."""
    outputs, padding = codes.shape[0], -codes.shape[0] % PANEL
    halves, small = (
        _by_block(_padded(part, padding)).movedim(1, -1)
        for part in (torch.stack(factors, -1), scale)
    )
    scales = _super_scales(halves, small)
    steps = _words(codes & 15, padding, 0)  # (P, K/4)
    stored = _joined(steps, 2, 4)
    if bits == 6:
        nibbles = stored.unflatten(1, (-1, 4))  # (P, G, 4)
        upper = _joined(_words(codes >> 4, padding, 0), 4, 2).unflatten(1, (-1, 2))
        stored = torch.cat((nibbles, upper), -1).flatten(1)
    return PackedWeight(_interleaved(stored), scales.contiguous(), outputs)


def _joined(words: Tensor, count: int, bits: int) -> Tensor:
    """`count` neighbouring words (P, n) of four codes of `bits` each as one, the first lowest."""
    parts = words.unflatten(1, (-1, count)).unbind(2)
    joined: Tensor = parts[0]
    for place, part in enumerate(parts[1:], 1):
        joined = joined | part << place * bits  # no code has more bits, so none runs over
    return joined


def _interleaved(words: Tensor) -> Tensor:
    """Words (P, n) by blocks of 16 rows, as bytes (P/16, n, 16, 4)."""
    return _by_block(words).transpose(1, 2).contiguous()[..., None].view(torch.uint8)


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
        words = _joined(_words(unsigned, padding, 0 if minimum is not None else 8), 2, 4)
    return PackedWeight(_interleaved(words), scales.contiguous(), outputs)


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
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return self.outputs, self.inputs

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

    def rows(self, numbers: Tensor) -> Tensor:
        """Rows (..., K) of the matrix by their `numbers` (...), int64, as float32."""
        return self.values[numbers // BLOCK, :, numbers % BLOCK].float()


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
