"""Gradient checkpointing: trading time for memory (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from limner.models.block import Block


@contextmanager
def recomputing(network: nn.Module) -> Iterator[None]:
    """Blocks keep only their inputs while the context lasts, and run again going backward."""
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    for block in blocks:
        again = partial(checkpoint, block.forward, use_reentrant=False)
        block.forward = again  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the class' own shows again
