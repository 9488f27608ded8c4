"""Evening out the load of experts by a bias of their routers, without a loss (Wang et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor

from limner.models.network import Network
from limner.nn.balance import balance_routers, watch_routing
from limner.nn.mixture import Router


class Balancer:
    """Counts what each expert gets in a training step, then moves the biases by `speed`.

    Routers without a bias are left alone.
    """

    def __init__(self, network: Network, speed: float) -> None:
        self.network, self.speed = network, speed
        named = network.named_modules()
        self.routers = {n for n, m in named if isinstance(m, Router) and m.bias is not None}
        self.loads: dict[str, Tensor] = {}

    @contextmanager
    def counting(self, mask: Tensor) -> Iterator[None]:
        """Count in forward passes of a batch, whose `mask` (B, T) is 0 at padding."""
        if not self.routers:
            yield
            return
        with watch_routing(self.network) as record:
            yield
        for name, load in record.loads(mask.float()).items():
            if name in self.routers:
                self.loads[name] = self.loads.get(name, 0) + load

    def move(self, shared: bool) -> None:
        """Move the biases by the loads since the last time; `shared`: of all processes together."""
        for load in self.loads.values() if shared else ():
            dist.all_reduce(load)
        balance_routers(self.network, self.loads, self.speed)
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.loads = {}
