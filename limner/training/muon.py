"""Muon: momentum whose matrices are made orthogonal (Jordan et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

#: A quintic whose iteration brings singular values near 1, from Jordan's note.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Near the closest matrix whose singular values are all 1, by Newton-Schulz iteration."""
    a, b, c = QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    result = matrix.mT if tall else matrix
    result = result / (result.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = result @ result.mT
        result = a * result + (b * gram + c * gram @ gram) @ result
    orthogonal: Tensor = result.mT if tall else result
    return orthogonal


class Muon(Optimizer):
    """For matrices (..., rows, columns) inside the network; the rest is AdamW's.

    The update has the size of AdamW's (Liu et al. 2025), so both take the same rate and decay.
    """

    def __init__(
        self, groups: Any, lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every matrix once."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient = parameter.grad
        assert gradient is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        looking_ahead = gradient.lerp(state["momentum"], group["momentum"])
        size = 0.2 * max(parameter.shape[-2:]) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalise(looking_ahead), alpha=-group["lr"] * size)
