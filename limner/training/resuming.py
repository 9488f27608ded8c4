"""From a run to a checkpoint and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from limner.training.checkpoints import Snapshot, load_random_states, random_states
from limner.training.sharing import like

if TYPE_CHECKING:
    from limner.training.trainer import Trainer


@dataclass
class Standing:
    """How far a run is.

    `refused` counts the steps that were not finite, `best` is the lowest validation loss, and
    `since_best` the validations since.
    """

    step: int = 0
    tokens: int = 0
    refused: int = 0
    refused_in_a_row: int = 0
    best: float = math.inf
    since_best: int = 0
    stopped_early: bool = False


def take_snapshot(trainer: Trainer) -> Snapshot:
    """Everything that `trainer` needs to go on as if it had never stopped."""
    average = trainer.average.tensors if trainer.average is not None else {}
    tensors = {
        "weights": weights_of(trainer),
        "optimizer": dict(trainer.optimizers.tensors()),
        "average": average,
        "random": random_states(),
    }
    standing = asdict(trainer.standing)
    standing["best"] = str(trainer.standing.best)  # JSON knows no infinity
    return Snapshot(tensors, {"standing": standing, "data": trainer.stream.state_dict()})


def restore(trainer: Trainer, snapshot: Snapshot, path: Path) -> None:
    """Put `trainer` where the snapshot was taken; ValueError if that was another run."""
    load_weights(trainer, snapshot.tensors["weights"], path)
    trainer.optimizers.load_tensors(snapshot.tensors.get("optimizer", {}))
    if trainer.average is not None:
        trainer.average.load(snapshot.tensors.get("average", {}))
    trainer.stream.load_state_dict(snapshot.facts["data"])
    standing = snapshot.facts["standing"]
    trainer.standing = Standing(**standing | {"best": float(standing["best"])})
    load_random_states(snapshot.tensors["random"])


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    """Parameters, tied ones once, and buffers."""
    parameters: dict[str, Tensor] = dict(trainer.trained.named_parameters())
    return parameters | dict(trainer.trained.named_buffers())


@torch.no_grad()
def load_weights(trainer: Trainer, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Set parameters and buffers; ValueError names one that does not fit."""
    own = weights_of(trainer)
    for name in sorted(own.keys() | tensors.keys()):
        here, there = (tuple(x[name].shape) if name in x else None for x in (own, tensors))
        if here != there:
            raise ValueError(
                f"the checkpoint {path} is of another network ({name} has shape {there} there and "
                f"{here} here): name another folder"
            )
        own[name].copy_(like(tensors[name], own[name]))
