"""Random numbers that depend on nothing but where they are used.

A counter-based generator is a function, not a stream: the number for (seed, sample, position) is
the same whoever else is in the batch, however the prompt was split, and in whatever order sequences
ran.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_ROUNDS = 10


def philox(counter: NDArray[np.uint64], key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Philox4x32-10 (Salmon et al. 2011), vectorised over rows.

    counter (N, 4) and key (N, 2) hold 32-bit words; returns (N, 4) random 32-bit words.
    """
    first, second, third, fourth = counter.T
    low_key, high_key = key.T
    for _ in range(_ROUNDS):
        left, right = first * _MULTIPLIERS[0], third * _MULTIPLIERS[1]
        first, third = (right >> _HALF) ^ second ^ low_key, (left >> _HALF) ^ fourth ^ high_key
        second, fourth = right & _LOW, left & _LOW
        low_key, high_key = (low_key + _WEYL[0]) & _LOW, (high_key + _WEYL[1]) & _LOW
    return np.stack([first, second, third, fourth], axis=1)


def uniform(
    seeds: Sequence[int], samples: Sequence[int], positions: Sequence[int], purpose: int = 0
) -> NDArray[np.float64]:
    """One number in [0, 1) for each (seed, sample, position), with all 53 bits of a double.

    `sample` tells apart several answers to one prompt under one seed; `purpose` tells apart several
    numbers at one position (0 draws the token). Seeds are taken modulo 2**64.
    """
    keys = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64)
    key = np.stack([keys & _LOW, keys >> _HALF], axis=1)
    counter = np.zeros((len(seeds), 4), dtype=np.uint64)
    counter[:, 0], counter[:, 1], counter[:, 2] = positions, samples, purpose
    words = philox(counter, key)
    bits = (words[:, 0] << np.uint64(21)) ^ (words[:, 1] >> np.uint64(11))
    return bits.astype(np.float64) * 2.0**-53
