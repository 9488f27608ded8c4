"""Checkpoints of a run: everything it needs to go on bit for bit, each whole or absent.

A checkpoint is a folder with `tensors.safetensors` and `state.json`, made under another name and
then renamed.
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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from limner.checkpoints.disk import explain_full_disk, require_space, staging_folder, sync_folder

TENSORS, STATE = "tensors.safetensors", "state.json"


@dataclass(frozen=True)
class Snapshot:
    """Tensors by group ("network", "optimizer", ...) and name, and facts that JSON can hold."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


def save_snapshot(folder: Path, step: int, snapshot: Snapshot, keep: int) -> Path:
    """Write a checkpoint below `folder`, then remove all but the newest `keep`.

    Raises OSError if the disk is full; the earlier checkpoints stay.
    """
    flat = {
        f"{group}:{name}": tensor.detach().cpu().contiguous()
        for group, tensors in snapshot.tensors.items()
        for name, tensor in tensors.items()
    }
    needed = sum(tensor.nbytes for tensor in flat.values()) + 1_000_000
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder, needed, "a checkpoint")
    final = folder / f"step-{step:08}"
    with explain_full_disk(folder, needed, "a checkpoint"), staging_folder(folder) as staging:
        whole = staging / "whole"
        whole.mkdir()
        _write(whole, flat, snapshot.facts)
        shutil.rmtree(final, ignore_errors=True)
        whole.replace(final)
        sync_folder(folder)
    for old in snapshots(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def _write(folder: Path, tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> None:
    try:
        save_file(tensors, folder / TENSORS)
    except SafetensorError as error:  # how it says that the disk is full
        raise OSError(f"cannot write {folder / TENSORS}: {error}") from error
    (folder / STATE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    for name in (TENSORS, STATE):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def snapshots(folder: Path) -> list[Path]:
    """The checkpoints below a folder, the newest last."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def load_snapshot(path: Path) -> Snapshot:
    """Read a checkpoint; ValueError names the file that is damaged."""
    try:
        facts = json.loads((path / STATE).read_text(encoding="utf-8"))
        groups: dict[str, dict[str, Tensor]] = {}
        with safe_open(path / TENSORS, "pt") as file:
            for key in file.keys():  # noqa: SIM118  not a mapping
                group, _, name = key.partition(":")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
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
