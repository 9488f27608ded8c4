"""How many answers fit in memory side by side."""

from __future__ import annotations

import os

import torch

from limner.models.decoder import Decoder

#: The share of free memory that a cache may reserve; activations need some too.
SHARE = 0.8


def rows_that_fit(network: Decoder, capacity: int, most: int) -> int:
    """Rows of a cache of `capacity` tokens each, at most `most`.

    Raises ValueError if not even one fits, naming both numbers.
    """
    device = network.embedding.tokens.weight.device
    one = network.new_cache(rows=1, capacity=1)
    row = capacity * sum(kept.nbytes for kept in [*one.keys, *one.values])
    free = free_bytes(device)
    rows = int(SHARE * free // max(row, 1))
    if rows == 0:
        raise ValueError(
            f"a context of {capacity} tokens needs {row / 1e9:.1f} GB for keys and values, and "
            f"{free / 1e9:.1f} GB are free on {device}: load the model with a smaller context"
        )
    return min(rows, most)


def free_bytes(device: torch.device) -> int:
    """Memory to be had; on a CPU all there is, since a cache takes it only as it fills."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
