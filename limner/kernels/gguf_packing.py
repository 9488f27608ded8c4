"""Packing the blocks of GGUF files, whose numbers stay what they are.

N outputs, K inputs, G = K / 32 groups, P = N padded to a multiple of 32, in P / 16 blocks.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from limner.kernels.packing import (
    PANEL,
    PackedWeight,
    by_block,
    in_slabs,
    interleaved,
    joined,
    pack_slab,
    padded_rows,
    stack,
    super_scales,
    words_of,
)

GGUFKind = Literal["Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]
_BYTES: dict[GGUFKind, int] = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20, "Q4_K": 144, "Q6_K": 210}

#: The low nibble of each byte of a word.
_LOW = 0x0F0F0F0F


def from_gguf(blocks: Tensor, kind: GGUFKind) -> PackedWeight:
    """Pack the raw blocks of a GGUF tensor, uint8 (N, bytes a row), with no second rounding.

    Raises ValueError if the row size is no multiple of the kind's block size.
    """
    size = _BYTES[kind]
    if blocks.dim() != 2 or blocks.dtype != torch.uint8 or blocks.shape[1] % size:
        raise ValueError(
            f"{kind} rows are uint8 in blocks of {size} bytes, but the tensor is {blocks.dtype} "
            f"of shape {tuple(blocks.shape)}"
        )
    slabs = in_slabs(blocks)
    packed = (_from_parts(slab.unflatten(1, (-1, size)), kind) for slab in slabs)
    return stack(packed, blocks.shape[0])


def _from_parts(parts: Tensor, kind: GGUFKind) -> PackedWeight:
    """Pack blocks (N, G, bytes)."""
    if kind == "Q4_K":
        return _from_q4_k(parts)
    if kind == "Q6_K":
        return _from_q6_k(parts)
    scale = _halves(parts, 0)
    if kind == "Q8_0":
        return pack_slab(parts[..., 2:].view(torch.int8), scale)
    # Four nibbles at a time, as the words of int32.
    words = parts[..., 2 if kind == "Q4_0" else 4 :].contiguous().view(torch.int32)  # (N, G, 4)
    codes = torch.cat((words & _LOW, words >> 4 & _LOW), -1).view(torch.uint8)  # (N, G, 32)
    if kind == "Q4_1":
        return pack_slab(codes, scale, _halves(parts, 2))
    return pack_slab(codes.view(torch.int8) - 8, scale, bits=4)


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
        by_block(padded_rows(part, padding)).movedim(1, -1)
        for part in (torch.stack(factors, -1), scale)
    )
    scales = super_scales(halves, small)
    steps = words_of(codes & 15, padding, 0)  # (P, K/4)
    stored = joined(steps, 2, 4)
    if bits == 6:
        nibbles = stored.unflatten(1, (-1, 4))  # (P, G, 4)
        upper = joined(words_of(codes >> 4, padding, 0), 4, 2).unflatten(1, (-1, 2))
        stored = torch.cat((nibbles, upper), -1).flatten(1)
    return PackedWeight(interleaved(stored), scales.contiguous(), outputs)


def _halves(parts: Tensor, start: int) -> Tensor:
    return parts[..., start : start + 2].contiguous().view(torch.float16).squeeze(-1)  # (N, G)
