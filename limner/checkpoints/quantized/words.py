"""Codes of a few bits, several to a 32-bit word, the first in the lowest bits."""

from __future__ import annotations

import torch
from torch import Tensor


def to_words(codes: Tensor, bits: int) -> Tensor:
    """Pack uint8 `codes` (..., n) of 4 or 8 `bits` into int32 (..., n * bits / 32).

    Raises ValueError if the last word would not be full.
    """
    each = 32 // bits
    if codes.shape[-1] % each:
        raise ValueError(
            f"{codes.shape[-1]} numbers of {bits} bits do not fill words of {each}: "
            "this format holds only matrices whose sizes are multiples of that"
        )
    if bits == 4:
        codes = codes[..., ::2] | codes[..., 1::2] << 4
    return _viewed(codes, torch.int32)


def from_words(words: Tensor, bits: int) -> Tensor:
    """The uint8 codes (..., n) of `bits` bits in int32 `words` (..., n * bits / 32)."""
    octets = _viewed(words, torch.uint8)
    if bits == 8:
        return octets
    return torch.stack((octets & 15, octets >> 4), -1).flatten(-2)


def _viewed(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """The last dimension's bytes as `dtype`."""
    # Flat, since a dimension of one may have any stride, which a view would refuse.
    return numbers.flatten().view(dtype).view(*numbers.shape[:-1], -1)
