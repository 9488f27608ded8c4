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

from limner.kernels.memory import weight_memory

GROUP = 32
BLOCK = 16
#: Kernels work on two blocks at a time.
PANEL = 32

#: Bytes packed at a time, so that what a large matrix needs meanwhile is a small part of it.
_SLAB = 1 << 20

#: Groups whose scales are themselves small integers times one of two halves, as in GGUF's Q4_K.
SUPER_GROUPS = 8
#: Bytes of the scales of 16 rows of a super-block with minima; without (Q6_K) it is 288.
_SUPER_MINIMUM = 320


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
        return stack([self._taken(rows)], len(rows))

    def reorder(self, rows: Tensor) -> PackedWeight:
        """The rows of these numbers (N,), in the memory of those that there were."""
        assert len(rows) == self.outputs
        taken = self._taken(rows)
        self.codes.copy_(taken.codes)
        self.scales.copy_(taken.scales)
        return self

    def _taken(self, rows: Tensor) -> PackedWeight:
        padded = padded_rows(rows, -len(rows) % PANEL)
        block, lane = padded // BLOCK, padded % BLOCK
        codes = by_block(self.codes[block, :, lane]).transpose(1, 2)  # (P/16, n, 16, 4)
        parts = [
            by_block(part[block, ..., lane]).movedim(1, -1) for part in _scale_parts(self.scales)
        ]
        scales = parts[0] if len(parts) == 1 else super_scales(*parts)
        return PackedWeight(codes, scales, len(rows))


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


def super_scales(halves: Tensor, small: Tensor) -> Tensor:
    """The way back from `_scale_parts`."""
    return torch.cat((halves.contiguous().view(torch.uint8).flatten(2), small.flatten(2)), -1)


def quantize(weight: Tensor, bits: Literal[8, 4] = 8, minimum: bool = False) -> PackedWeight:
    """Round `weight` (N, K) to nearest in groups of 32, as GGUF's Q8_0, Q4_0 or Q4_1 do.

    Raises ValueError if K is no multiple of 32 or a value is not finite.
    """
    groups = _groups(weight)
    if not groups.isfinite().all():
        raise ValueError("cannot quantize a weight that holds infinities or NaN: check its source")
    slabs = (_quantize_slab(slab, bits, minimum) for slab in in_slabs(groups))
    return stack(slabs, weight.shape[0])


def _quantize_slab(groups: Tensor, bits: Literal[8, 4], minimum: bool) -> PackedWeight:
    """Round groups (N, G, 32)."""
    if bits == 8:
        scale = groups.abs().amax(-1, keepdim=True) / 127
        return pack_slab(
            _rounded(groups, scale, -127, 127).to(torch.int8), scale.half().squeeze(-1)
        )
    if minimum:
        low = groups.amin(-1, keepdim=True)
        scale = (groups.amax(-1, keepdim=True) - low) / 15
        codes = _rounded(groups - low, scale, 0, 15).to(torch.uint8)
        return pack_slab(codes, scale.half().squeeze(-1), low.half().squeeze(-1))
    # The value of largest magnitude, with its sign, becomes code -8: all 16 codes are used.
    peak = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = peak / -8
    return pack_slab(
        _rounded(groups, scale, -8, 7).to(torch.int8), scale.half().squeeze(-1), bits=4
    )


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


def in_slabs(rows: Tensor) -> tuple[Tensor, ...]:
    """`rows` (N, ...) cut into panels, so few at a time that packing them takes little memory."""
    size = rows[:1].nbytes
    return rows.split(max(_SLAB // max(size, 1) // PANEL, 1) * PANEL)


def stack(slabs: Iterable[PackedWeight], outputs: int) -> PackedWeight:
    """A matrix of `outputs` rows from `slabs`, all but the last of which are whole panels."""
    blocks, place = -(-outputs // PANEL) * PANEL // BLOCK, 0
    for slab in slabs:
        if not place:
            codes = weight_memory((blocks, *slab.codes.shape[1:]), slab.codes.dtype)
            scales = weight_memory((blocks, *slab.scales.shape[1:]), slab.scales.dtype)
        end = place + len(slab.codes)
        codes[place:end], scales[place:end] = slab.codes, slab.scales
        place = end
    return PackedWeight(codes, scales, outputs)


def joined(words: Tensor, count: int, bits: int) -> Tensor:
    """`count` neighbouring words (P, n) of four codes of `bits` each as one, the first lowest."""
    parts = words.unflatten(1, (-1, count)).unbind(2)
    joined: Tensor = parts[0]
    for place, part in enumerate(parts[1:], 1):
        joined = joined | part << place * bits  # no code has more bits, so none runs over
    return joined


def interleaved(words: Tensor) -> Tensor:
    """Words (P, n) by blocks of 16 rows, as bytes (P/16, n, 16, 4)."""
    return by_block(words).transpose(1, 2).contiguous()[..., None].view(torch.uint8)


def pack(
    codes: Tensor, scale: Tensor, minimum: Tensor | None = None, bits: Literal[8, 4] = 8
) -> PackedWeight:
    """Interleave codes (N, G, 32) and their scales (N, G).

    `codes` are int8 of 8 bits, int8 from -8 to 7 for `bits` 4, or uint8 up to 15 with a `minimum`
    (N, G).
    """
    return stack([pack_slab(codes, scale, minimum, bits)], codes.shape[0])


def pack_slab(
    codes: Tensor, scale: Tensor, minimum: Tensor | None = None, bits: Literal[8, 4] = 8
) -> PackedWeight:
    """`pack` for some panels of a matrix that is to be stacked."""
    outputs = codes.shape[0]
    padding = -outputs % PANEL
    scales = scale if minimum is None else torch.stack((scale, minimum), -1)  # (N, G[, 2])
    scales = by_block(padded_rows(scales, padding)).movedim(1, -1)  # (P/16, G[, 2], 16)
    if minimum is None and bits == 8:
        words = words_of(codes.view(torch.uint8) ^ 128, padding, 128)  # (P, K/4)
    else:
        unsigned = codes if minimum is not None else (codes + 8).view(torch.uint8)
        words = joined(words_of(unsigned, padding, 0 if minimum is not None else 8), 2, 4)
    return PackedWeight(interleaved(words), scales.contiguous(), outputs)


def padded_rows(values: Tensor, rows: int, fill: int = 0) -> Tensor:
    """`values` (N, ...) and below them `rows` more that hold `fill`."""
    padding = [0, 0] * (values.dim() - 1) + [0, rows]
    return functional.pad(values, padding, value=fill) if rows else values


def by_block(values: Tensor) -> Tensor:
    """Rows (P, ...) as blocks (P/16, 16, ...)."""
    blocks: Tensor = values.unflatten(0, (-1, BLOCK))
    return blocks


def words_of(codes: Tensor, padding: int, fill: int) -> Tensor:
    """Four codes a word, which moves them four at a time: (N, G, 32) as int32 (P, K/4)."""
    return padded_rows(codes, padding, fill).contiguous().view(torch.int32).flatten(1)


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
    padded = by_block(padded_rows(weight.detach(), -outputs % PANEL))  # (P/16, 16, K)
    values = weight_memory((len(padded), weight.shape[1], BLOCK), weight.dtype)
    return PackedFloats(values.copy_(padded.transpose(1, 2)), outputs)
