"""Keeping the load of experts even: what routers did, an auxiliary loss, and biases.

B batch, T time, N tokens, E experts, C experts chosen for a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from limner.nn.mixture import Router, Routing


@dataclass
class RoutingRecord:
    """What each router of a network did in its last forward pass, by the router's name."""

    routings: dict[str, Routing] = field(default_factory=dict)

    def loads(self, weights: Tensor | None = None) -> Mapping[str, Tensor]:
        """Tokens each expert got, (E,) a router; `weights` (B, T) 0 leaves a token out."""
        return {name: _load(routing, weights) for name, routing in self.routings.items()}


@contextmanager
def watch_routing(network: nn.Module) -> Iterator[RoutingRecord]:
    """Record what the routers of `network` do while the context lasts."""
    record = RoutingRecord()

    def note(name: str, routing: Routing) -> None:
        record.routings[name] = routing

    hooks = [
        module.register_forward_hook(lambda _, __, routing, name=name: note(name, routing))
        for name, module in network.named_modules()
        if isinstance(module, Router)
    ]
    try:
        yield record
    finally:
        for hook in hooks:
            hook.remove()


def balance_loss(record: RoutingRecord, weights: Tensor | None = None) -> Tensor:
    """The auxiliary loss of Switch transformers (Fedus et al. 2022, equations 4 to 6), a scalar.

    E x the sum over experts of the share of tokens it got times its mean score, averaged over
    routers: the number of experts chosen when the load is even, more when it is not. `weights`
    (B, T) 0 leaves a token out (padding). Raises ValueError if nothing was routed.
    """
    if not record.routings:
        raise ValueError("the network has no routers: a balance loss needs a mixture of experts")
    losses = []
    for routing in record.routings.values():
        kept = _kept(routing, weights)
        share = _load(routing, weights) / kept.sum()
        mean = (kept[:, None] * routing.scores).sum(0) / kept.sum()
        losses.append(routing.scores.shape[1] * (share * mean).sum())
    return torch.stack(losses).mean()


def balance_routers(network: nn.Module, loads: Mapping[str, Tensor], speed: float = 0.001) -> None:
    """Move the bias of every router towards an even load (see `Router.balance`)."""
    for name, counts in loads.items():
        router = network.get_submodule(name)
        assert isinstance(router, Router)
        router.balance(counts, speed)


def _kept(routing: Routing, weights: Tensor | None) -> Tensor:
    """Weights of the tokens, (N,)."""
    return routing.scores.new_ones(len(routing.scores)) if weights is None else weights.flatten()


def _load(routing: Routing, weights: Tensor | None) -> Tensor:
    chosen, experts = routing.experts.shape[1], routing.scores.shape[1]
    each = _kept(routing, weights).repeat_interleave(chosen)
    return torch.bincount(routing.experts.flatten(), each.detach(), minlength=experts)
