"""GPTQ (Frantar et al. 2023): rounding input by input, later inputs making up for earlier errors.

N outputs, K inputs, G groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.checkpoints.quantized import Grid, GroupedWeight
from limner.quantization.clipping import search_clip
from limner.quantization.rounding import Levels, assemble, codes_of, fit, in_groups

#: Inputs whose errors are spread among themselves first, and over the rest then, in one product.
BLOCK = 128


def gptq(
    matrix: Tensor,
    hessian: Tensor,
    grid: Grid,
    damping: float = 0.01,
    by_weight: bool = False,
) -> GroupedWeight:
    """Round `matrix` (N, K) so that its outputs change little on the inputs that were seen.

    Args:
        matrix: the weights.
        hessian: (K, K), the sum of x xᵀ over inputs x, times any number.
        grid: what is rounded to.
        damping: this share of the mean of the Hessian's diagonal is added to it.
        by_weight: take inputs in falling order of their diagonal ("act-order"), with the grids
            fixed beforehand and clipped, so that groups stay one behind another.

    Raises:
        ValueError: groups do not divide the inputs, or the Hessian or a weight is not finite.
    """
    if not hessian.isfinite().all():
        raise ValueError("the calibration texts gave inputs that are not finite: check the model")
    groups = in_groups(matrix, grid)
    order = hessian.diagonal().argsort(descending=True, stable=True) if by_weight else None
    if order is None:
        work = _Rounding(groups.flatten(1).clone(), spreading(hessian, damping), grid)
        return assemble(*work.run(), grid)
    weight = groups.flatten(1)[:, order]
    factor = spreading(hessian[order][:, order], damping)
    levels = fit(groups, grid, search_clip(matrix, hessian.diagonal(), grid))
    work = _Rounding(weight, factor, grid, levels, order)
    codes, levels = work.run()
    return assemble(codes[:, order.argsort()], levels, grid)


def spreading(hessian: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor (K, K) of the inverse of the damped Hessian."""
    hessian = hessian.double()
    diagonal = hessian.diagonal()
    mean = diagonal.mean().item() or 1.0
    damped = hessian + torch.eye(len(hessian), dtype=hessian.dtype) * (damping * mean)
    lower = torch.linalg.cholesky(damped)
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True).float()


class _Rounding:
    """The pass over all inputs.

    Args:
        weight: (N, K), which is used up.
        factor: see `spreading`.
        grid: what is rounded to.
        levels: (N, G) of every group; without, a group gets its own when its first input comes,
            from what its weights are by then.
        order: which input each column is; the order of groups if not given.
    """

    def __init__(
        self,
        weight: Tensor,
        factor: Tensor,
        grid: Grid,
        levels: Levels | None = None,
        order: Tensor | None = None,
    ) -> None:
        self.weight, self.factor, self.grid = weight, factor, grid
        outputs, inputs = weight.shape
        self.group = grid.group_of(inputs)
        self.own = levels is None
        self.levels = levels or Levels(*torch.empty(2, outputs, inputs // self.group))
        places = torch.arange(inputs) if order is None else order
        self.groups: list[int] = (places // self.group).tolist()
        self.codes = torch.empty_like(weight)

    def run(self) -> tuple[Tensor, Levels]:
        """Codes (N, K) and levels (N, G)."""
        inputs = self.weight.shape[1]
        # A group must not begin in one block and end in the next.
        aligned = BLOCK % self.group == 0 or self.group % BLOCK == 0
        block = BLOCK if aligned else self.group
        for start in range(0, inputs, block):
            end = min(start + block, inputs)
            errors = [self._column(place, end) for place in range(start, end)]
            self.weight[:, end:] -= torch.stack(errors, 1) @ self.factor[start:end, end:]
        return self.codes, self.levels

    def _column(self, place: int, end: int) -> Tensor:
        """Round one column, spread its error (N,) up to column `end`, and give it back."""
        group = self.groups[place]
        if self.own and place % self.group == 0:
            found = fit(self.weight[:, place : place + self.group], self.grid)
            self.levels.scale[:, group], self.levels.zero[:, group] = found
        level = Levels(self.levels.scale[:, group], self.levels.zero[:, group])
        column = self.weight[:, place]
        codes = codes_of(column[:, None], level, self.grid)[:, 0]
        self.codes[:, place] = codes
        error = (column - (codes - level.zero) * level.scale) / self.factor[place, place]
        self.weight[:, place:end] -= error[:, None] * self.factor[place, place:end]
        return error
