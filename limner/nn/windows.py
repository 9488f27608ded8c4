"""The last few inputs of each token: short causal convolutions and fixed-window models.

n texts, C tokens of each, D width, K tokens seen.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def with_past(inputs: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs (n, C, D) behind their past (n, K - 1, D), and the past of what follows them."""
    joined = torch.cat((past.to(inputs.dtype), inputs), 1)  # (n, K - 1 + C, D)
    return joined, joined[:, inputs.shape[1] :]


def windows(joined: Tensor, count: int, starts: Tensor | None) -> Tensor:
    """The last `count` = K inputs of each token, its own last: (n, C, K, D).

    `joined` (n, K - 1 + C, D) begins with the past. `starts` (n, C) is True where another text
    begins inside a row; places before the text are zeros.
    """
    seen = joined.unfold(1, count, 1).transpose(2, 3)  # (n, C, K, D)
    if starts is None:
        return seen
    return torch.where(_same_text(starts, count)[..., None], seen, 0)


def causal_convolution(
    joined: Tensor, weight: Tensor, bias: Tensor | None, starts: Tensor | None
) -> Tensor:
    """Each number of the stream convolved with its last K own, `weight` (D, 1, K): (n, C, D)."""
    if starts is None:
        mixed = functional.conv1d(joined.transpose(1, 2), weight, bias, groups=weight.shape[0])
        return mixed.transpose(1, 2)
    seen = windows(joined, weight.shape[-1], starts)
    mixed = torch.einsum("nckd,dk->ncd", seen, weight[:, 0])
    return mixed if bias is None else mixed + bias


def _same_text(starts: Tensor, count: int) -> Tensor:
    """Which of the last K inputs belong to the token's own text, (n, C, K)."""
    index = torch.arange(starts.shape[1], device=starts.device)
    begin = torch.where(starts, index, -count).cummax(1).values  # (n, C)
    age = (index - begin)[..., None]
    return age >= torch.arange(count - 1, -1, -1, device=starts.device)
