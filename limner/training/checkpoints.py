"""Checkpoints of a run: everything it needs to go on bit for bit, each whole or absent.

A checkpoint is a folder with `tensors.safetensors` (or a file for each process, where they share
the weights) and `state.json`, made under another name and then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from limner.checkpoints.disk import explain_full_disk, require_space, sync_folder
from limner.training.parallel import Ranks
from limner.training.shards import read_shards, write_shards
from limner.training.sharing import local

TENSORS, STATE = "tensors.safetensors", "state.json"


@dataclass(frozen=True)
class Snapshot:
    """Tensors by group ("network", "optimizer", ...) and name, and facts that JSON can hold."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


def save_snapshot(
    folder: Path, step: int, snapshot: Snapshot, keep: int, ranks: Ranks | None = None
) -> None:
    """Write a checkpoint below `folder`, then remove all but the newest `keep`.

    Processes that share the weights write their parts side by side; else the first writes all.

    Raises OSError if the disk is full; the earlier checkpoints stay.
    """
    ranks = ranks or Ranks()
    if not (ranks.first or ranks.sharing_weights):
        return
    flat = {
        f"{group}:{name}": tensor.detach()
        for group, tensors in snapshot.tensors.items()
        for name, tensor in tensors.items()
    }
    needed = sum(local(tensor).nbytes for tensor in flat.values()) + 1_000_000
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, needed, "a checkpoint")
    with explain_full_disk(folder, needed, "a checkpoint"), ranks.staging(folder) as staging:
        _write(staging, flat, snapshot.facts, ranks)
        if ranks.first:
            _finish(staging, folder, step, keep)


def _write(
    folder: Path, tensors: dict[str, Tensor], facts: Mapping[str, Any], ranks: Ranks
) -> None:
    if ranks.sharing_weights:
        write_shards(folder, tensors)
    else:
        write_tensors(folder / TENSORS, tensors)
    if ranks.first:
        (folder / STATE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write them to one file; OSError if that cannot be."""
    try:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)
    except SafetensorError as error:  # how it says that the disk is full
        raise OSError(f"cannot write {path}: {error}") from error


def _finish(staging: Path, folder: Path, step: int, keep: int) -> None:
    """Give a checkpoint its name, and remove old ones."""
    final = folder / f"step-{step:08}"
    shutil.rmtree(final, ignore_errors=True)
    staging.replace(final)
    sync_folder(folder)
    for old in snapshots(folder)[:-keep]:
        shutil.rmtree(old)


def snapshots(folder: Path) -> list[Path]:
    """The checkpoints below a folder, the newest last."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def load_snapshot(path: Path, own: Mapping[str, Tensor]) -> Snapshot:
    """Read a checkpoint, however many processes wrote it; ValueError names one that is damaged.

    Of tensors of which this process has a share in `own`, it reads that.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        facts = json.loads((path / STATE).read_text(encoding="utf-8"))
        whole = (path / TENSORS).exists()
        tensors = load_file(path / TENSORS) if whole else read_shards(path, own)
        for key, tensor in tensors.items():
            group, _, name = key.partition(":")
            groups.setdefault(group, {})[name] = tensor
    except (ValueError, SafetensorError) as error:
        raise ValueError(
            f"the checkpoint {path} is damaged ({error}): remove it to go on from the one before"
        ) from error
    return Snapshot(groups, facts)


def random_states() -> dict[str, Tensor]:
    """The states of PyTorch's own random generators; the data has its own and keeps them."""
    states = {"cpu": torch.get_rng_state()}
    for number in range(torch.cuda.device_count()):
        states[f"cuda{number}"] = torch.cuda.get_rng_state(number)
    return states


def load_random_states(states: Mapping[str, Tensor]) -> None:
    """Go on drawing where these states were taken."""
    torch.set_rng_state(states["cpu"])
    for number in range(torch.cuda.device_count()):
        if f"cuda{number}" in states:
            torch.cuda.set_rng_state(states[f"cuda{number}"], number)
