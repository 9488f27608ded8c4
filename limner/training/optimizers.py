"""Optimizers, and which of them moves which parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from limner.config import Settings
from limner.training.muon import Muon
from limner.training.sharing import like, local, norm

Named = tuple[str, nn.Parameter]


class OptimizerSettings(Settings):
    """How parameters are moved."""

    kind: Literal["adamw", "muon", "adafactor"] = "adamw"
    """adamw (Loshchilov and Hutter 2019), muon for the matrices inside and adamw for the rest
    (Jordan et al. 2024), or adafactor, which keeps next to nothing (Shazeer and Stern 2018)"""
    rate: float = Field(default=6e-4, gt=0)
    """the highest learning rate; of adafactor as a share of each matrix' own size"""
    decay: float = Field(default=0.1, ge=0)
    """weight decay of matrices inside the network"""
    betas: tuple[float, float] = (0.9, 0.95)
    """how slowly the averages of gradients and of their squares forget"""
    epsilon: float = Field(default=1e-8, gt=0)
    """added to the root of the squares"""


class Optimizers:
    """One optimizer or two, as one.

    Weight decay falls on matrices inside the network only: not on biases and gains, where 0 means
    nothing special, and not on embeddings, of which a step meets few and decay would meet all.
    """

    def __init__(self, network: nn.Module, settings: OptimizerSettings) -> None:
        self.settings = settings
        self.named = trainable(network)
        self.parameters = [parameter for _, parameter in self.named]
        if not self.parameters:
            raise ValueError("the network has no parameter that may change: nothing can be trained")
        inside = inner_matrices(network)
        matrices = [p for _, p in self.named if id(p) in inside]
        others = [p for _, p in self.named if id(p) not in inside]
        self.all = list(make_optimizers(matrices, others, settings))

    def set_rate(self, share: float) -> None:
        """Go on at this share of the highest rate."""
        for optimizer in self.all:
            for group in optimizer.param_groups:
                group["lr"] = share * self.settings.rate

    def divide_gradients(self, weight: Tensor, most: float = math.inf) -> Tensor:
        """Turn the gradient of a sum into that of a mean, and scale it to a norm of at most `most`.

        Both in one pass over the memory; the norm that the mean had, a scalar.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        length = norm(gradients) / weight
        scale = (most / length).clamp(max=1.0) / weight
        torch._foreach_mul_([local(gradient) for gradient in gradients], scale)
        return length

    def step(self) -> None:
        """Move the parameters."""
        for optimizer in self.all:
            optimizer.step()

    def forget_gradients(self) -> None:
        """Make room for the next step's gradient."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What the optimizers keep of each parameter, by names that do not change."""
        names = {id(parameter): name for name, parameter in self.named}
        for optimizer in self.all:
            for parameter, kept in optimizer.state.items():
                for key, value in kept.items():
                    yield f"{names[id(parameter)]}/{key}", torch.as_tensor(value)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with what `tensors` gave."""
        owners = {id(p): optimizer for optimizer in self.all for p in _parameters_of(optimizer)}
        parameters = dict(self.named)
        for name, tensor in tensors.items():
            parameter, _, key = name.rpartition("/")
            kept = owners[id(parameters[parameter])].state[parameters[parameter]]
            kept[key] = like(tensor, parameters[parameter]).clone()


def trainable(network: nn.Module) -> list[Named]:
    """Parameters that may change, those used in two places once."""
    return [(name, p) for name, p in network.named_parameters() if p.requires_grad]


def inner_matrices(network: nn.Module) -> set[int]:
    """Ids of the parameters that are matrices, tables of vectors and what is tied to them aside."""
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    return {id(p) for _, p in trainable(network) if p.ndim > 1 and id(p) not in tables}


def make_optimizers(
    matrices: list[nn.Parameter], others: list[nn.Parameter], settings: OptimizerSettings
) -> Iterator[Optimizer]:
    """The optimizers of the matrices inside, and of everything else."""
    if settings.kind == "muon":
        if matrices:
            yield Muon(matrices, settings.rate, weight_decay=settings.decay)
        if others:
            yield adamw(groups([], others, settings), settings)
    elif settings.kind == "adamw":
        yield adamw(groups(matrices, others, settings), settings)
    else:
        yield torch.optim.Adafactor(groups(matrices, others, settings), lr=settings.rate)


def groups(
    matrices: list[nn.Parameter], others: list[nn.Parameter], settings: OptimizerSettings
) -> list[dict[str, object]]:
    """Parameters with and without decay, and apart again those that processes share."""
    both = [(matrices, settings.decay), (others, 0.0)]
    parts = [
        ([p for p in each if isinstance(p, DTensor) == shared], decay)
        for each, decay in both
        for shared in (False, True)
    ]
    return [{"params": part, "weight_decay": decay} for part, decay in parts if part]


def adamw(parameters: Iterable[dict[str, object]], settings: OptimizerSettings) -> Optimizer:
    """AdamW in PyTorch's fused form."""
    return torch.optim.AdamW(
        parameters,
        lr=settings.rate,
        betas=settings.betas,
        eps=settings.epsilon,
        fused=True,
    )


def _parameters_of(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]
