"""Memory, disk, hours and cost of a run, worked out before it begins.

What the weights and the optimizer take is arithmetic; activations are measured on two rows, and
the time on two steps, if those fit.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from limner.data.batches import Batch, collate
from limner.language_model.memory import free_bytes
from limner.objectives.cross_entropy import chunk_bytes
from limner.training.doctor.report import Check, Level
from limner.training.optimizers import OptimizerSettings, inner_matrices, trainable
from limner.training.settings import TrainingSettings
from limner.training.trainer import Trainer

#: Above this share of the memory there is, a run is likely to be killed by what else happens.
TIGHT = 0.85
#: Python with PyTorch.
BESIDE = 300_000_000
#: A line of the log.
LINE = 300


@dataclass(frozen=True)
class Memory:
    """Bytes of a run, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of them, and what every run takes beside."""
        kept = self.weights + self.gradients + self.optimizer + self.average
        return kept + self.activations + self.logits + BESIDE

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint."""
        return self.weights + self.optimizer + self.average


def memory_of(trained: nn.Module, settings: TrainingSettings, activations: int) -> Memory:
    """The memory of training `trained`, given what the activations of a micro-batch take."""
    weights = sum(tensor.nbytes for tensor in [*trained.parameters(), *trained.buffers()])
    gradients = sum(parameter.nbytes for _, parameter in trainable(trained))
    return Memory(
        weights,
        gradients,
        optimizer_bytes(trained, settings.optimizer),
        weights if settings.average else 0,
        activations,
        chunk_bytes(trained),
    )


def optimizer_bytes(trained: nn.Module, settings: OptimizerSettings) -> int:
    """What an optimizer keeps: two numbers a parameter, or for Muon's matrices one.

    Adafactor keeps a number a row and one a column of each matrix.
    """
    inside = inner_matrices(trained)
    total = 0
    for _, parameter in trainable(trained):
        if settings.kind == "adafactor" and parameter.ndim > 1:
            total += 4 * (parameter.shape[0] + parameter.shape[-1])
        elif settings.kind == "adafactor" or (settings.kind == "muon" and id(parameter) in inside):
            total += parameter.nbytes
        else:
            total += 2 * parameter.nbytes
    return total


def activation_bytes(trainer: Trainer, batch: Batch) -> int:
    """What is kept of a micro-batch for the backward pass, from one row of `batch` and from two."""
    rows = min(trainer.settings.micro_rows or trainer.settings.rows, trainer.settings.rows)
    one, two = (saved_bytes(trainer, batch.part(slice(0, count))) for count in (1, 2))
    return one + (rows - 1) * (two - one)


def saved_bytes(trainer: Trainer, batch: Batch) -> int:
    """What is kept of a batch for the backward pass."""
    with keeping_saved(trainer.trained) as saved, trainer.precision():
        loss = trainer.objective.loss(trainer.network, batch)
    del loss
    return sum(kept[0].untyped_storage().nbytes() for kept in saved.values() if kept)


@contextmanager
def keeping_saved(trained: nn.Module) -> Iterator[dict[int, list[Tensor]]]:
    """By storage, the tensors that are saved for the backward pass, weights apart.

    What a chunk of logits has saved is gone when its gradient has been worked out.
    """
    weights = {tensor.untyped_storage().data_ptr() for tensor in trained.parameters()}
    saved: dict[int, list[Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            saved.setdefault(address, []).append(tensor)
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        if kept := saved.get(tensor.untyped_storage().data_ptr()):
            kept.pop()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield saved


def check_memory(memory: Memory, device: torch.device) -> Check:
    """Whether it fits in the memory that the device has."""
    there = free_bytes(device)
    parts = ", ".join(
        f"{name} {gigabytes(getattr(memory, name))}"
        for name in ("weights", "gradients", "optimizer", "average", "activations", "logits")
        if getattr(memory, name)
    )
    share = memory.total / there
    level: Level = "FAIL" if share > 1 else "WARN" if share > TIGHT else "OK"
    advice = "" if level == "OK" else "; lower micro_rows, or set recompute=true"
    said = f"{gigabytes(memory.total)} of {gigabytes(there)} ({parts}){advice}"
    return Check("memory", level, said)


def check_disk(memory: Memory, settings: TrainingSettings, folder: Path) -> Check:
    """Whether checkpoints, of which one more exists for a moment, the model and the log fit."""
    needed = (settings.keep + 1) * memory.checkpoint + memory.weights + LINE * settings.steps
    above = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    free = shutil.disk_usage(above).free
    level: Level = "FAIL" if needed > free else "WARN" if needed > TIGHT * free else "OK"
    advice = "" if level == "OK" else "; lower keep, or name another folder"
    each = f"{settings.keep + 1} checkpoints of {gigabytes(memory.checkpoint)}"
    said = f"{gigabytes(needed)} of {gigabytes(free)} free ({each}){advice}"
    return Check("disk", level, said)


def gigabytes(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e7 else f"{count / 1e6:,.2f} MB"


# Time


def trial(trainer: Trainer) -> tuple[float, float]:
    """Seconds of a step and of a validation, measured on two steps and one batch.

    The first step warms up. The parameters move, so `trainer` is of no use afterwards.
    """
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        rows = list(islice(trainer.stream, trainer.settings.rows))
        total = trainer.learn(collate(rows).to(trainer.device))
        trainer.update(total)
        seconds = time.perf_counter() - started
    return seconds, validation_seconds(trainer)


@torch.no_grad()
def validation_seconds(trainer: Trainer) -> float:
    """How long all validation batches take, from how long one does."""
    if trainer.validation is None:
        return 0.0
    batches = iter(trainer.validation())
    started = time.perf_counter()
    with trainer.precision():
        trainer.objective.loss(trainer.network, next(batches).to(trainer.device))
    return (time.perf_counter() - started) * (1 + sum(1 for _ in batches))


def whole_hours(settings: TrainingSettings, step: float, validation: float) -> float:
    """Hours of the run, with its validations."""
    every = settings.validate_every or max(settings.steps // 20, 1)
    return (settings.steps * step + math.ceil(settings.steps / every) * validation) / 3600


def check_hours(hours: float, step: float, most: float | None) -> Check:
    """Whether it is done in time."""
    said = f"{spelled(hours)} ({step:.3g} s a step, validation included)"
    if most is not None and hours > most:
        return Check("hours", "FAIL", f"{said}, more than the {most:g} h there are")
    return Check("hours", "OK", said)


def spelled(hours: float) -> str:
    """Hours, or minutes if it is less than one."""
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def check_cost(hours: float, price: float | None, budget: float | None) -> Iterator[Check]:
    """What it costs, if a price an hour is given."""
    if price is None:
        return
    cost = hours * price
    said = f"{cost:,.2f} at {price:g} an hour"
    if budget is not None and cost > budget:
        yield Check("cost", "FAIL", f"{said}, more than the budget of {budget:g}")
    else:
        yield Check("cost", "OK", said)
