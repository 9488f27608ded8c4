"""Dequantisation of GGUF's block formats (ggml's `block_q4_0` and kin).

Every format here is affine within a group of weights: weight = code * scale (+ offset). A format
therefore only says where in its block the codes, scales and offsets sit; one routine does the rest.
The multiplication and the addition round separately, which makes results bit-equal to gguf-py's.

N blocks, S groups in a block (K-quants have 8 or 16, the older formats one).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from limner.kernels.library import one_torch_thread

# One step writes 1 MB of float32: its temporaries stay in the second-level cache, and the fixed
# cost of a dozen operator calls stays small beside the work.
WEIGHTS_PER_STEP = 1 << 18


class Groups(NamedTuple):
    """Unpacked blocks."""

    codes: Tensor  # (N, S, group) small integers
    scale: Tensor  # (N, S, 1) float32
    offset: Tensor | None = None  # (N, S, 1) float32


def dequantize(blocks: Tensor, format: str, out: Tensor) -> None:
    """Write the weights of blocks into `out`, a cache-sized step at a time.

    Args:
        blocks: (N, bytes of a block) uint8.
        format: a key of `UNPACK`.
        out: contiguous, N times the weights of a block, of any floating dtype.
    """
    unpack = UNPACK[format]
    weights = out.view(blocks.shape[0], -1)  # (N, weights of a block)
    step = WEIGHTS_PER_STEP // weights.shape[1]
    # Thousands of small operators would wait at the barriers of two threads: 10 to 40 seconds were
    # measured on a busy machine, against one with one thread.
    with one_torch_thread():
        for part, target in zip(blocks.split(step), weights.split(step), strict=True):
            _write(unpack(part), target)


def _write(groups: Groups, target: Tensor) -> None:
    shaped = target.view(groups.codes.shape)  # (N, S, group)
    exact = (
        shaped if target.dtype == torch.float32 else torch.empty_like(shaped, dtype=torch.float32)
    )
    torch.mul(groups.codes, groups.scale, out=exact)
    if groups.offset is not None:
        exact.add_(groups.offset)
    if exact is not shaped:
        shaped.copy_(exact)


def _halves(blocks: Tensor, start: int, count: int = 1) -> Tensor:
    """`count` float16 numbers from byte `start` of every block, as (N, count, 1) float32."""
    numbers = blocks[:, start : start + 2 * count].contiguous().view(torch.float16)
    return numbers.float().unsqueeze(-1)


def _nibbles(packed: Tensor) -> Tensor:
    """Low halves of all bytes, then high halves: (N, ..., bytes) to (N, ..., 2 * bytes)."""
    packed = packed.contiguous()
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _fifth_bits(packed: Tensor) -> Tensor:
    """Bit i of a little-endian 32-bit word as 16 or 0, for i of 0 to 31: (N, 4) to (N, 32)."""
    masks = torch.tensor([1 << bit for bit in range(8)], dtype=torch.uint8)
    return (packed.unsqueeze(-1) & masks).ne(0).flatten(1).to(torch.uint8) << 4


def _q4_0(blocks: Tensor) -> Groups:
    codes = _nibbles(blocks[:, 2:]).view(torch.int8) - 8  # (N, 32)
    return Groups(codes.unsqueeze(1), _halves(blocks, 0))


def _q4_1(blocks: Tensor) -> Groups:
    codes = _nibbles(blocks[:, 4:])  # (N, 32)
    return Groups(codes.unsqueeze(1), _halves(blocks, 0), _halves(blocks, 2))


def _q5_0(blocks: Tensor) -> Groups:
    codes = _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])  # (N, 32)
    return Groups(codes.view(torch.int8).sub_(16).unsqueeze(1), _halves(blocks, 0))


def _q5_1(blocks: Tensor) -> Groups:
    codes = _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])  # (N, 32)
    return Groups(codes.unsqueeze(1), _halves(blocks, 0), _halves(blocks, 2))


def _q8_0(blocks: Tensor) -> Groups:
    codes = blocks[:, 2:].view(torch.int8)  # (N, 32)
    return Groups(codes.unsqueeze(1), _halves(blocks, 0))


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and offset of the 8 groups of a Q4_K or Q5_K block, each (N, 8, 1).

    Bytes 4 to 15 hold eight 6-bit scales and eight 6-bit minima. The first four of each are the low
    six bits of a byte; the last four take their low nibbles from bytes 12 to 15 and their top two
    bits from the bytes of the first four.
    """
    first_scales, first_minima, nibbles = blocks[:, 4:16].split(4, dim=1)  # (N, 4) each
    last_scales = (nibbles & 15) | ((first_scales >> 6) << 4)
    last_minima = (nibbles >> 4) | ((first_minima >> 6) << 4)
    scales = torch.cat((first_scales & 63, last_scales), dim=1).unsqueeze(-1)  # (N, 8, 1)
    minima = torch.cat((first_minima & 63, last_minima), dim=1).unsqueeze(-1)  # (N, 8, 1)
    return scales * _halves(blocks, 0), -(minima * _halves(blocks, 2))


def _q4_k(blocks: Tensor) -> Groups:
    codes = _nibbles(blocks[:, 16:].unflatten(1, (4, 32)))  # (N, 4, 64)
    return Groups(codes.view(-1, 8, 32), *_k_scales(blocks))


def _q5_k(blocks: Tensor) -> Groups:
    low = _nibbles(blocks[:, 48:].unflatten(1, (4, 32))).view(-1, 8, 32)
    masks = torch.tensor([1 << group for group in range(8)], dtype=torch.uint8)
    high = (blocks[:, None, 16:48] & masks[:, None]).ne(0).to(torch.uint8) << 4  # (N, 8, 32)
    return Groups(low | high, *_k_scales(blocks))


def _q6_k(blocks: Tensor) -> Groups:
    low = _nibbles(blocks[:, :128].unflatten(1, (2, 64)))  # (N, 2, 128)
    shifts = torch.tensor([0, 2, 4, 6], dtype=torch.uint8)
    packed = blocks[:, 128:192].unflatten(1, (2, 1, 32))  # four codes' top bits in a byte
    high = ((packed >> shifts[:, None]) & 3) << 4  # (N, 2, 4, 32)
    codes = (low | high.flatten(2)).view(torch.int8).sub_(32)  # (N, 2, 128)
    scales = blocks[:, 192:208].view(torch.int8).unsqueeze(-1) * _halves(blocks, 208)  # (N, 16, 1)
    return Groups(codes.view(-1, 16, 16), scales)


UNPACK: Mapping[str, Callable[[Tensor], Groups]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
"""Where each block format keeps its codes, scales and offsets."""
