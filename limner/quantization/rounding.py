"""Rounding a matrix to a few bits, each number to the nearest.

N outputs, K inputs, G groups, g inputs of a group.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from limner.checkpoints.quantized import Grid, GroupedWeight
from limner.nn.scaled import FLOAT8, ScaledWeight, round_rows


class Levels(NamedTuple):
    """The grids of some groups: scales (...) in float32, of half precision's values, and zeros."""

    scale: Tensor
    zero: Tensor


def fit(values: Tensor, grid: Grid, clip: float | Tensor = 1.0) -> Levels:
    """The grid of each group of `values` (..., g) that reaches `clip` times its extremes.

    Scales have the precision they are stored in, so codes are found for the scale that is used. A
    zero that is a code is one from 1 on: 0 is not kept by every program that reads GPTQ folders.
    """
    if grid.symmetric:
        # The value of largest magnitude, whatever its sign, is code 0, so all codes are used.
        peak = values.gather(-1, values.abs().argmax(-1, keepdim=True)).squeeze(-1)
        scale = _stored(peak * clip / -grid.middle)
        return Levels(scale, torch.full_like(scale, grid.middle))
    if grid.minimum:
        return _with_minimum(values.amin(-1) * clip, values.amax(-1) * clip, grid)
    low = values.amin(-1).clamp(max=0) * clip
    high = values.amax(-1).clamp(min=0) * clip
    # With a zero of 1 at least, one step below zero is always there.
    scale = _stored(torch.maximum((high - low) / grid.highest, high / (grid.highest - 1)))
    zero = (-low * _inverse(scale)).round().clamp(1, grid.highest)
    return Levels(scale, zero)


def _with_minimum(low: Tensor, high: Tensor, grid: Grid) -> Levels:
    """The grids from `low` to `high` (...), which need not hold zero."""
    scale, minimum = _stored((high - low) / grid.highest), _stored(low)
    # A group of one number becomes code 1 of a grid that starts at zero.
    single = scale == 0
    scale = torch.where(single, minimum, scale)
    return Levels(scale, torch.where(single, 0.0, -minimum * _inverse(scale)))


def _stored(scale: Tensor) -> Tensor:
    return scale.half().float()


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0.0, 1 / scale)


def codes_of(values: Tensor, levels: Levels, grid: Grid) -> Tensor:
    """The nearest codes, in float, of `values` (..., g)."""
    scale, zero = levels.scale[..., None], levels.zero[..., None]
    return (values * _inverse(scale) + zero).round().clamp(0, grid.highest)


def rounded(values: Tensor, levels: Levels, grid: Grid) -> Tensor:
    """What `values` (..., g) become."""
    codes = codes_of(values, levels, grid)
    return (codes - levels.zero[..., None]) * levels.scale[..., None]


def in_groups(matrix: Tensor, grid: Grid) -> Tensor:
    """A matrix (N, K) as (N, G, g) in float32.

    Raises ValueError if groups do not divide its inputs, or a number is not finite.
    """
    _require_finite(matrix)
    group = grid.group_of(matrix.shape[1])
    return matrix.detach().float().unflatten(1, (-1, group))


def _require_finite(matrix: Tensor) -> None:
    if not matrix.isfinite().all():
        raise ValueError("cannot quantize a weight that holds infinities or NaN: check its source")


def assemble(codes: Tensor, levels: Levels, grid: Grid) -> GroupedWeight:
    """The weight of codes (N, G, g) or (N, K) and levels (N, G)."""
    flat = codes.flatten(1).to(torch.uint8)
    zeros = levels.zero if grid.minimum else levels.zero.to(torch.uint8)
    return GroupedWeight(flat, levels.scale.half(), zeros, grid.bits)


def round_whole_rows(matrix: Tensor, dtype: torch.dtype = FLOAT8) -> ScaledWeight:
    """`matrix` (N, K) in int8 or float8, with one scale for each row.

    Raises ValueError if a number is not finite.
    """
    _require_finite(matrix)
    return round_rows(matrix, dtype)


def round_to_nearest(matrix: Tensor, grid: Grid, clip: float | Tensor = 1.0) -> GroupedWeight:
    """`matrix` (N, K) with each number rounded to the nearest of its group's grid.

    `clip` (a number, or one a group, (N, G)) makes a group's grid finer and cuts off what it no
    longer reaches.

    Raises ValueError if groups do not divide its inputs, or a number is not finite.
    """
    groups = in_groups(matrix, grid)
    levels = fit(groups, grid, clip)
    return assemble(codes_of(groups, levels, grid), levels, grid)
