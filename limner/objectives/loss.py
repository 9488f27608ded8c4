"""What an objective answers: sums and weights, so that adding parts gives what the whole would."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from limner.data.batches import Batch

#: From a process' rows (b, ...) to those of all (B, ...), and the place of its first among them.
Gather = Callable[[Tensor], tuple[Tensor, int]]


class Sum(NamedTuple):
    """A sum and the weight that it is to be divided by, both scalars."""

    total: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Loss:
    """The sum of the losses of some places, the sum of their weights, and other sums to report.

    The trainer differentiates `total` and divides the gradient by the `weight` of all batches of a
    step, once; so a step does not depend on how its places were shared out.
    """

    total: Tensor
    weight: Tensor
    metrics: Mapping[str, Sum] = field(default_factory=dict)

    @property
    def mean(self) -> Tensor:
        """The loss of a place; NaN if there are none."""
        return self.total / self.weight

    def __add__(self, other: Loss) -> Loss:
        metrics = dict(self.metrics)
        for name, more in other.metrics.items():
            had = metrics.get(name)
            metrics[name] = (
                more if had is None else Sum(*(a + b for a, b in zip(had, more, strict=True)))
            )
        return Loss(self.total + other.total, self.weight + other.weight, metrics)

    def __mul__(self, share: float) -> Loss:
        """Counted as so much of itself."""
        metrics = {name: Sum(*(t * share for t in both)) for name, both in self.metrics.items()}
        return Loss(self.total * share, self.weight * share, metrics)

    def detach(self) -> Loss:
        """The numbers without their history."""
        metrics = {name: Sum(*(t.detach() for t in both)) for name, both in self.metrics.items()}
        return Loss(self.total.detach(), self.weight.detach(), metrics)

    def means(self) -> dict[str, float]:
        """The loss and the metrics as plain numbers."""
        plain = self.detach()
        means = {name: float(both.total / both.weight) for name, both in plain.metrics.items()}
        return {"loss": float(plain.mean), **means}


def add(losses: Iterable[Loss]) -> Loss:
    """The loss of several batches together; there must be one."""
    first, *rest = losses
    for loss in rest:
        first = first + loss
    return first


class Objective(Protocol):
    """What is learnt from a batch.

    One that is an `nn.Module` has parameters of its own, which are trained with the network's.
    """

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """The loss of `network` on `batch`."""
        ...


@runtime_checkable
class Comparing(Objective, Protocol):
    """One whose rows look at one another, also at those that another process computes."""

    def shared_loss(self, network: nn.Module, batch: Batch, gather: Gather) -> Loss:
        """What this process' rows add to the loss of all; `gather` passes gradients back."""
        ...
