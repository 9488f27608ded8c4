"""Sharing the weights of a network out to processes, and tensors of which each has a share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.nn.functional import all_gather
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    RowwiseParallel,
    parallelize_module,
)

from limner.models.block import Block
from limner.models.decoder import Decoder
from limner.models.network import Network
from limner.nn.attention import Attention
from limner.nn.feedforward import FeedForward
from limner.nn.mixture import idle_parameters

#: Projections that are cut by what they give, and those that are cut by what they take.
COLUMNS = ("query", "key", "value", "gate", "up")
ROWS = ("output", "down")


def uses_all(network: Network) -> bool:
    """Whether every pass is sure to use every parameter, so that DDP need not look for others."""
    plain = isinstance(network, Decoder) and not network.predictors and not network.heads
    return plain and not idle_parameters(network)


def blocks_of(lesson: nn.Module) -> list[Block]:
    """Every block, also those inside parts of networks."""
    return [module for module in lesson.modules() if isinstance(module, Block)]


def shard(lesson: nn.Module, mesh: DeviceMesh) -> None:
    """A share of every weight for each process, gathered a block at a time (FSDP2).

    Single numbers stay whole everywhere. What belongs to no block is gathered for all of `lesson`,
    so two networks in it may share it.
    """
    single = {parameter for parameter in lesson.parameters() if parameter.ndim == 0}
    for block in blocks_of(lesson):
        fully_shard(block, mesh=mesh, ignored_params=single)
    fully_shard(lesson, mesh=mesh, reshard_after_forward=False, ignored_params=single)
    for module in lesson.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sums: the trainer divides once
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other


def split_layers(lesson: nn.Module, mesh: DeviceMesh) -> None:
    """A share of every block's heads and inner width for each process.

    Raises ValueError if there are other layers than attention and feed-forward, or their sizes do
    not divide.
    """
    for block in blocks_of(lesson):
        for part in (block.mixer, block.feedforward):
            require_divisible(part, mesh.size())
            assert part is not None
            plan: dict[str, ParallelStyle] = {}
            plan |= {name: ColwiseParallel() for name in COLUMNS if linear(part, name)}
            plan |= {name: RowwiseParallel() for name in ROWS if linear(part, name)}
            parallelize_module(part, mesh, plan)


def linear(module: nn.Module, name: str) -> bool:
    """Whether the module has such a projection."""
    return isinstance(getattr(module, name, None), nn.Linear)


def require_divisible(part: nn.Module | None, size: int) -> None:
    """ValueError if the layer cannot be cut into `size` equal parts."""
    for number in shares_of(part):
        if number % size:
            raise ValueError(
                f"parallel.kind=tensor cannot cut {number} heads or numbers into {size} equal "
                "parts: use parallel.kind=fsdp, or another number of processes"
            )


def shares_of(part: nn.Module | None) -> tuple[int, ...]:
    """What of a layer is shared out; ValueError if it cannot be."""
    if isinstance(part, FeedForward):
        return (part.down.in_features,)
    if isinstance(part, Attention):
        config = part.config
        if not (config.norm_together or config.alibi or config.relative or config.pattern):
            return config.heads, config.key_value_heads
    raise ValueError(
        f"parallel.kind=tensor cannot cut a layer of kind {type(part).__name__} with these "
        "settings: use parallel.kind=fsdp"
    )


def settle(lesson: nn.Module) -> None:
    """Give back what was gathered for a forward pass that no backward pass followed."""
    for module in lesson.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


# Tensors of which each process has a share


def local(tensor: Tensor) -> Tensor:
    """This process' share."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def cut(tensor: Tensor) -> bool:
    """Whether each process has another part; biases behind a sum over processes are whole."""
    return isinstance(tensor, DTensor) and any(place.is_shard() for place in tensor.placements)


def full(tensor: Tensor) -> Tensor:
    """All of it, on every process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole `tensor`, shared out as `own` is."""
    if not isinstance(own, DTensor) or isinstance(tensor, DTensor) or tensor.shape != own.shape:
        return tensor
    return distribute_tensor(tensor, own.device_mesh, own.placements)


def gather(rows: Tensor) -> Tensor:
    """The rows (B, ...) of all processes, of which each has as many (b, ...); differentiable."""
    return torch.cat(all_gather(rows.contiguous()))


def norm(tensors: Sequence[Tensor]) -> Tensor:
    """The length of all of them as one vector, those shared out counted whole, a scalar."""
    shared = [local(tensor) for tensor in tensors if cut(tensor)]
    plain = [local(tensor) for tensor in tensors if not cut(tensor)]
    if not shared:
        return _squares(plain).sqrt()
    squares = _squares(shared)
    dist.all_reduce(squares)
    return (squares + _squares(plain) if plain else squares).sqrt()


def _squares(tensors: list[Tensor]) -> Tensor:
    return torch.stack(list(torch._foreach_norm(tensors))).square().sum()
