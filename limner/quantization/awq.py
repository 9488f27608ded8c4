"""AWQ (Lin et al. 2024): inputs that matter get finer steps, by a scale that another layer undoes.

Before rounding, the column of each input is multiplied by a scale, and what makes the input is
divided by it (see `folding`). In floats that changes nothing; rounded, columns with large inputs
lose less.

N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from limner.checkpoints.quantized import Grid, GroupedWeight
from limner.quantization.clipping import damage, search_clip
from limner.quantization.rounding import round_to_nearest

#: Powers of the inputs' mean magnitude that are tried as scales.
POWERS = tuple(step / 10 for step in range(10))


def search_scales(
    matrices: Sequence[Tensor], hessian: Tensor, magnitude: Tensor, grid: Grid
) -> Tensor:
    """The scales (K,) with which rounding `matrices` (N, K) each moves their outputs least.

    They are powers of `magnitude` (K,), the mean |x| over the inputs of `hessian` (K, K). Grids are
    clipped while searching, as they will be: what a scale gains, clipping may gain alone.
    """
    best, least = torch.ones_like(magnitude), float("inf")
    sizes = magnitude.clamp(min=1e-4)
    for power in POWERS:
        scale = sizes**power
        scale = scale / (scale.max() * scale.min()).sqrt()
        moved = sum(_moved(matrix, scale, hessian, grid) for matrix in matrices)
        if moved < least:
            best, least = scale, moved
    return best


def _moved(matrix: Tensor, scale: Tensor, hessian: Tensor, grid: Grid) -> float:
    """How far outputs move if the columns of `matrix` are scaled for the rounding."""
    became = round_clipped(matrix * scale, hessian.diagonal() / scale.square(), grid)
    return damage(became.dequantize() / scale - matrix, hessian)


def round_clipped(matrix: Tensor, importance: Tensor, grid: Grid) -> GroupedWeight:
    """Round `matrix` (N, K) to nearest, its grids clipped where that helps (`search_clip`)."""
    return round_to_nearest(matrix, grid, search_clip(matrix, importance, grid))
