"""Adapter folders: adapter_config.json and adapter_model.safetensors, as the peft library's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from limner.checkpoints.checkpoint import read_json
from limner.checkpoints.disk import staging_folder, sync_folder
from limner.checkpoints.safetensors import SafetensorsFile, write_safetensors
from limner.models.network import Network
from limner.peft.config import LoraConfig, read_config, write_config
from limner.peft.lora import Adapter, LowRank
from limner.peft.places import Place, Places

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
#: Ends of tensors' names: A and B.
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / CONFIG).is_file()


def read_adapter(network: Network, folder: str | Path) -> Adapter:
    """The adapter in a folder, for this network, its matrices in float32.

    Raises:
        FileNotFoundError: there is no adapter.
        ValueError: it does something that is not supported, changes what the network does not
            have, or is damaged; the message names it.
    """
    folder = Path(folder).expanduser()
    config = _read_config(folder)
    file = _open_weights(folder)
    names = _modules(file)
    places = Places(network)
    found: dict[str, Place] = {}
    changes: dict[str, LowRank] = {}
    for name in names:
        full = places.full_name(name)
        found[full] = places.find(name)
        changes[full] = _read_change(file, config, name, found[full])
    _check_whole(config, places, names, file.path)
    return Adapter(config, found, changes).to(network.device).eval()


def _read_config(folder: Path) -> LoraConfig:
    if not folder.is_dir():
        raise FileNotFoundError(f"no adapter at '{folder}': give a folder that peft saved")
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"no {CONFIG} in '{folder}': this is no adapter of peft's")
    return read_config(read_json(path), path)


def _open_weights(folder: Path) -> SafetensorsFile:
    path = folder / WEIGHTS
    if path.is_file():
        return SafetensorsFile(path)
    if path.with_suffix(".bin").is_file():
        raise ValueError(
            f"'{path.with_suffix('.bin')}' is pickled, which may run code: save the adapter again "
            "with a newer peft, as safetensors"
        )
    raise FileNotFoundError(f"no {WEIGHTS} in '{folder}': the adapter has no weights")


def _modules(file: SafetensorsFile) -> list[str]:
    """The modules that a file changes, in its order."""
    names: dict[str, None] = {}
    for tensor in file.names():
        end = next((end for end in (DOWN, UP) if tensor.endswith(end)), None)
        if end is None or not tensor.startswith(PREFIX):
            raise ValueError(
                f"'{file.path}' holds the tensor '{tensor}', which is none of a LoRA adapter's to "
                "linear layers (lora_A and lora_B): limner supports no other"
            )
        names[tensor.removeprefix(PREFIX).removesuffix(end)] = None
    if not names:
        raise ValueError(f"'{file.path}' holds no tensors")
    return list(names)


def _read_change(file: SafetensorsFile, config: LoraConfig, name: str, place: Place) -> LowRank:
    rank = config.rank_of(name)
    down = _read(file, PREFIX + name + DOWN, (rank, place.inputs))
    up = _read(file, PREFIX + name + UP, (place.outputs, rank))
    return LowRank(down, up, config.scale_of(name), config.dropout)


def _read(file: SafetensorsFile, name: str, shape: tuple[int, int]) -> Tensor:
    if file.shape(name) != shape:
        raise ValueError(
            f"'{file.path}': '{name}' has shape {file.shape(name)}, but the adapter's config and "
            f"the model say {shape}: it is for another model, or damaged"
        )
    return file.read(name).to(torch.float32, copy=True)


def _check_whole(config: LoraConfig, places: Places, names: Iterable[str], path: Path) -> None:
    """Raise ValueError if config and file disagree on what is changed."""
    for name in names:
        if not config.changes(name):
            raise ValueError(f"'{path}' changes '{name}', which its config does not name")
    if config.targets == "all-linear":
        return
    there = {places.full_name(name) for name in names}
    for name in places.names():
        if name not in there and config.changes(name):
            raise ValueError(f"'{path}' lacks '{name}', which its config names: it is not whole")


def write_adapter(adapter: Adapter, folder: str | Path) -> None:
    """Write a folder that the peft library opens. An adapter that was there is replaced.

    Raises OSError if the disk is full; what was there survives then.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = write_config(adapter.config, input_first=adapter.input_first)
    with staging_folder(folder) as staging:
        (weights,) = write_safetensors(_tensors(adapter), staging, max_shard_bytes=2**63)
        config = staging / CONFIG
        config.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        os.replace(weights, folder / WEIGHTS)
        os.replace(config, folder / CONFIG)
        sync_folder(folder)


def _tensors(adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    for name in adapter.names:
        change = adapter.change(name)
        yield PREFIX + name + DOWN, change.down.detach()
        yield PREFIX + name + UP, change.up.detach()
