"""A moving average of the weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from limner.training.sharing import like


class WeightAverage:
    """An exponential moving average of all parameters of a network.

    It forgets faster in the beginning, where the weights are random: by (1 + n) / (10 + n) after n
    steps, until that reaches `decay`.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay = network, decay
        self.tensors = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in self.network.named_parameters():
            self.tensors[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with these averages."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(like(tensor, self.tensors[name]))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averaged weights while the context lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.network.named_parameters():
            own = parameter.clone()
            parameter.copy_(self.tensors[name])
            self.tensors[name].copy_(own)
