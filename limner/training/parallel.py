"""One run in several processes (torchrun, Ray Train): who computes what, and how it comes together.

All processes read the same rows and make the same decisions; what differs is said here alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from limner.checkpoints.disk import staging_folder
from limner.config import Settings
from limner.data.batches import Batch
from limner.models.network import Network
from limner.objectives.loss import Comparing, Loss, Objective, Sum
from limner.training.sharing import full, gather, shard, split_layers, uses_all

UNFINISHED = ".unfinished"
DIED = (
    "another process of this run has died: all but the steps since the last checkpoint is kept, "
    "and the same command goes on from there"
)
Kind = Literal["ddp", "fsdp", "tensor"]


class ParallelSettings(Settings):
    """How the processes of `torchrun` share the work."""

    kind: Kind = "ddp"
    """ddp: each has the whole network and a share of the rows; fsdp: each has also only a share of
    every weight (FSDP2; Zhao et al. 2023); tensor: each has a share of the heads and of the inner
    widths, and all rows (Shoeybi et al. 2019)"""


class Lesson(nn.Module):
    """The loss as a module's output, which is what DDP and FSDP2 watch."""

    def __init__(self, network: Network, objective: Objective, ranks: Ranks) -> None:
        super().__init__()
        self.network, self.objective, self.ranks = network, objective, ranks

    def forward(self, batch: Batch, whole: bool = False) -> tuple[Tensor, Loss]:
        """The sum to differentiate, by itself and with all that belongs to it.

        A batch is this process' share of one unless it is `whole`.
        """
        objective = self.objective
        if self.ranks.sharing_rows and not whole and isinstance(objective, Comparing):
            loss = objective.shared_loss(self.network, batch, self.ranks.gather)
        else:
            loss = objective.loss(self.network, batch)
        return loss.total, loss


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, as one of them sees them; by default there is no other."""

    kind: Kind = "ddp"
    number: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    @property
    def sharing_rows(self) -> bool:
        """Whether each process has rows of its own."""
        return self.size > 1 and self.kind != "tensor"

    @property
    def sharing_weights(self) -> bool:
        """Whether each process has a share of each weight."""
        return self.size > 1 and self.kind != "ddp"

    # Before the run

    def spread(self, lesson: Lesson) -> nn.Module:
        """Share out the networks of a lesson, whose weights are equal everywhere; what to learn by.

        Raises ValueError if they cannot be shared so.
        """
        if self.size == 1:
            return lesson
        if self.kind == "ddp":
            some = not uses_all(lesson.network)
            return DistributedDataParallel(lesson, find_unused_parameters=some)
        mesh = init_device_mesh(lesson.network.device.type, (self.size,))
        (shard if self.kind == "fsdp" else split_layers)(lesson, mesh)
        return lesson

    def require_fit(self, rows: int, optimizer: str) -> None:
        """ValueError if the rows of a step, or what the optimizer needs, cannot be shared out."""
        if self.sharing_weights and optimizer != "adamw":
            raise ValueError(
                f"optimizer.kind={optimizer} needs whole matrices, of which parallel.kind="
                f"{self.kind} has parts: use optimizer.kind=adamw, or parallel.kind=ddp"
            )
        if self.sharing_rows and rows % self.size:
            raise ValueError(
                f"rows={rows} cannot be shared by {self.size} processes: give a multiple"
            )

    # In a step

    def share(self, batch: Batch) -> Batch:
        """This process' rows."""
        if not self.sharing_rows:
            return batch
        count = len(batch) // self.size
        return batch.part(slice(self.number * count, (self.number + 1) * count))

    def accumulating(self, learner: nn.Module, last: bool) -> AbstractContextManager[None]:
        """Gradients are added up over the processes in the last micro-batch only."""
        if isinstance(learner, DistributedDataParallel) and not last:
            return learner.no_sync()
        if isinstance(learner, FSDPModule):
            learner.set_requires_gradient_sync(last)
        return nullcontext()

    def gather(self, rows: Tensor) -> tuple[Tensor, int]:
        """The rows of all processes, differentiably, and the place of the first of these."""
        return gather(rows), self.number * len(rows)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up over the processes the gradients that FSDP2 leaves: those of single numbers."""
        if self.size == 1 or self.kind != "fsdp":
            return
        for parameter in parameters:
            if parameter.grad is not None and not isinstance(parameter, DTensor):
                dist.all_reduce(parameter.grad)

    def gradient_weight(self, weight: Tensor) -> Tensor:
        """What to divide gradients by for a mean: DDP has divided them by the processes."""
        return weight / self.size if self.size > 1 and self.kind == "ddp" else weight

    def add(self, loss: Loss) -> Loss:
        """The loss of all processes together."""
        if not self.sharing_rows:
            return loss
        sums = [Sum(loss.total, loss.weight), *loss.metrics.values()]
        numbers = torch.stack([number.double() for both in sums for number in both])
        dist.all_reduce(numbers)
        pairs = [Sum(*pair) for pair in numbers.float().view(-1, 2)]
        return Loss(*pairs[0], dict(zip(loss.metrics, pairs[1:], strict=True)))

    def portion(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, float]]:
        """This process' batches, each with how much it counts.

        The last few, of which there is none for each, are everyone's, so that all processes do the
        same number of passes, and count with the first process.
        """
        if not self.sharing_rows:
            yield from ((batch, 1.0) for batch in batches)
            return
        source = iter(batches)
        while gathered := list(islice(source, self.size)):
            if len(gathered) == self.size:
                yield gathered[self.number], 1.0
            else:
                yield from ((batch, float(self.first)) for batch in gathered)

    def decided(self, wish: bool, device: torch.device) -> bool:
        """What the first process wishes."""
        if self.size == 1:
            return wish
        said = torch.tensor(int(wish), device=device)
        dist.broadcast(said, 0)
        return bool(said)

    def any(self, wish: bool, device: torch.device) -> bool:
        """Whether any process wishes it."""
        if self.size == 1:
            return wish
        said = torch.tensor(int(wish), device=device)
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said)

    @contextmanager
    def staging(self, folder: Path) -> Iterator[Path]:
        """An empty folder inside `folder`, for all processes that write to it."""
        with staging_folder(folder, UNFINISHED) if self.first else nullcontext():
            staging = folder / UNFINISHED / "whole"
            if self.first:
                staging.mkdir()
            self._wait()
            yield staging
            self._wait()

    def _wait(self) -> None:
        """Until all processes that write are here."""
        if self.sharing_weights:
            dist.barrier()

    # The network as a whole

    def whole(self, network: Network) -> Network:
        """The network with all of its weights, on the first process; elsewhere without contents."""
        if not self.sharing_weights:
            return network
        tensors = {name: full(tensor) for name, tensor in network.named_parameters()}
        tensors |= dict(network.named_buffers())
        copy = network.config.build()
        if self.first:
            copy.load_state_dict(tensors, strict=False)
        return copy.to(network.device)


# Joining


@contextmanager
def joined(settings: ParallelSettings, device: torch.device) -> Iterator[Ranks]:
    """The processes that torchrun or Ray started together, for as long as the context lasts.

    Raises ConnectionError if one of them dies.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    connected = dist.is_initialized()  # by Ray Train, which also ends it
    try:
        if not connected:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        yield Ranks(settings.kind, dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not lost(error):
            raise
        raise ConnectionError(DIED) from error
    else:
        if not connected:
            dist.destroy_process_group()


def lost(error: RuntimeError) -> bool:
    """Whether an error is that of a process whose partner is gone."""
    return isinstance(error, dist.DistError) or "onnection" in str(error)


def local_device(name: str) -> str:
    """The device of this process: with several processes and GPUs, each has its own."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or name not in ("auto", "cuda") or not torch.cuda.is_available():
        return name
    return f"cuda:{local}"
