"""Gradient checkpointing: trading time for memory (Chen et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from limner.models.block import Block


def recomputing(network: nn.Module) -> AbstractContextManager[None]:
    """Blocks keep only their inputs while the context lasts, and run again going backward."""
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    return forward_replaced(
        blocks, lambda block: partial(checkpoint, block.forward, use_reentrant=False)
    )


@contextmanager
def forward_replaced(
    modules: Sequence[nn.Module], make: Callable[[nn.Module], Callable[..., Any]]
) -> Iterator[None]:
    """Each of `modules` computes by what `make` makes of it while the context lasts."""
    for module in modules:
        module.forward = make(module)
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # the class' own shows again
