"""Checkpoints of processes that share the weights, which any number of processes can read.

Each writes its part of every tensor to a safetensors file of its own, with where it belongs
(torch.distributed.checkpoint in the Hugging Face format, which has no pickles in it).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write this process' parts; OSError on every process if one of them could not."""
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        save(dict(tensors), storage_writer=writer)
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise OSError(f"cannot write to {folder}: {first}") from error


def read_shards(folder: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors, those of which this process has a share in `own` shared out alike."""
    reader = HuggingFaceStorageReader(str(folder))
    found = reader.read_metadata().state_dict_metadata
    tensors = {name: _place(name, each, own) for name, each in found.items()}
    with warnings.catch_warnings():
        # That it is read by one process is as it should be.
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(tensors, storage_reader=reader, no_dist=not dist.is_initialized())
    return tensors


def _place(key: str, found: object, own: Mapping[str, Tensor]) -> Tensor:
    """Room for a tensor, or for this process' share of it."""
    assert isinstance(found, TensorStorageMetadata)
    name = key.partition(":")[2]
    names = (name, f"network.{name}", name.rpartition("/")[0])
    parameter = next((own[each] for each in names if each in own), None)
    if isinstance(parameter, DTensor) and parameter.shape == found.size:
        return torch.empty_like(parameter, requires_grad=False)
    return torch.empty(found.size, dtype=found.properties.dtype)
