"""Grids that leave out a group's extremes, where finer steps for all its numbers are worth more.

N outputs, K inputs, G groups, g inputs of a group.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.checkpoints.quantized import Grid
from limner.quantization.rounding import fit, in_groups, rounded

#: Shares of a group's extremes that its grid may reach.
CLIPS = tuple(1 - step / 20 for step in range(10))


def search_clip(matrix: Tensor, importance: Tensor, grid: Grid) -> Tensor:
    """The shares (N, G) with which rounding `matrix` (N, K) to nearest does the least harm.

    Harm is squared error times the `importance` (K,) of an input, such as the mean of its square:
    what outputs move if inputs know nothing of one another.
    """
    groups = in_groups(matrix, grid)  # (N, G, g)
    weights = importance.float().unflatten(0, groups.shape[1:])  # (G, g)
    best = torch.ones(groups.shape[:2])
    least = torch.full_like(best, float("inf"))
    for clip in CLIPS:
        change = rounded(groups, fit(groups, grid, clip), grid) - groups
        harm = (change.square() * weights).sum(-1)  # (N, G)
        best = torch.where(harm < least, clip, best)
        least = torch.minimum(harm, least)
    return best


def damage(change: Tensor, hessian: Tensor) -> float:
    """How much outputs move, squared and summed over inputs, of whose x xᵀ `hessian` is the sum.

    `change` (N, K) is what is added to the weights, `hessian` (K, K).
    """
    return float(((change @ hessian) * change).sum())
