"""How much of what answers keep fits in memory, and giving back what is not needed."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from limner.models.decoder import Decoder

#: The share of free memory that a cache may reserve; activations need some too.
SHARE = 0.8


def pages_that_fit(network: Decoder, context: int, rows: int, bits: int | None = None) -> int:
    """Pages of a cache for `rows` texts of `context` tokens, or as many as there is memory for.

    Raises ValueError if not even one text fits, naming both numbers.
    """
    one = network.new_paged_cache(rows=1, capacity=1, bits=bits)
    each = -(-context // one.page_size)
    free = free_bytes(network.device)
    fitting = int(SHARE * free // max(one.page_bytes, 1))
    if fitting < each:
        raise ValueError(
            f"a context of {context} tokens needs {each * one.page_bytes / 1e9:.1f} GB for keys "
            f"and values, and {free / 1e9:.1f} GB are free on {network.device}: load the model "
            "with a smaller context"
        )
    return min(rows * each, fitting)


def free_bytes(device: torch.device) -> int:
    """Memory to be had; on a CPU all there is, since a cache takes it only as it fills."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def give_back() -> None:
    """Return to the system what was freed; the C library would keep it for later.

    After a model has been read that is the memory of what was read on the way, a fifth of a small
    model's weights.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
