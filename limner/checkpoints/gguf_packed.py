"""Packed weights as the blocks of GGUF files: the way back from `kernels.from_gguf`.

N outputs, K inputs, G = K / 32 groups, P = N padded to whole blocks of rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.kernels import GROUP, PackedWeight


def packed_format(packed: PackedWeight) -> str | None:
    """How GGUF names the way a weight keeps its numbers: "Q8_0", "Q4_0" or "Q4_1".

    None if its scales are small integers (Q4_K and Q6_K), which are not written.
    """
    if packed.scales.dtype != torch.float16:
        return None
    if packed.bits == 8:
        return "Q8_0"
    return "Q4_1" if packed.has_minimum else "Q4_0"


def to_blocks(packed: PackedWeight) -> Tensor:
    """The bytes of a GGUF tensor with the very numbers of `packed`, uint8 (N, bytes a row)."""
    codes = packed.codes.transpose(1, 2).flatten(0, 1)  # (P, n, 4)
    if packed.bits == 8:
        stored = (codes ^ 128).reshape(len(codes), -1, GROUP)  # (P, G, 32)
    else:
        nibbles = torch.stack((codes & 15, codes >> 4), -2).reshape(len(codes), -1, GROUP)
        stored = nibbles[..., : GROUP // 2] | nibbles[..., GROUP // 2 :] << 4  # (P, G, 16)
    scales = packed.scales.movedim(-1, 1).flatten(0, 1)  # (P, G) or (P, G, 2)
    halves = scales.contiguous()[..., None].view(torch.uint8).flatten(2)  # (P, G, 2 or 4)
    return torch.cat((halves, stored), -1).flatten(1)[: packed.outputs]
