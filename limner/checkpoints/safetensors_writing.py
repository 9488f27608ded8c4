"""Writing safetensors: shards and their index, all or nothing.

Everything is written into a staging folder first. The old weights are replaced by single renames,
in an order that leaves a loadable folder at every moment, and removed last.
"""

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from limner.checkpoints.disk import explain_full_disk, require_space, staging_folder, sync_folder
from limner.checkpoints.safetensors_header import FORMATS, INDEX, WEIGHTS

SHARD_BYTES = 5_000_000_000

Shard = dict[str, Tensor]


def write_safetensors(
    tensors: Iterable[tuple[str, Tensor]],
    folder: str | Path,
    max_shard_bytes: int = SHARD_BYTES,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write weights into a folder as `model.safetensors`, or as shards with an index.

    A tensor that is the same memory as an earlier one (tied weights) is written once, under its
    first name. Tensors may be produced lazily: at most one shard of them is held. Existing weights
    stay whole until the new ones are complete, and are then removed.

    Args:
        tensors: names and tensors, on any device.
        folder: made if missing.
        max_shard_bytes: a shard ends before the tensor that would make it larger than this.
        metadata: strings for the header; transformers expects {"format": "pt"}, the default.

    Returns:
        The files written, the index last.

    Raises:
        ValueError: a name occurs twice, or PyTorch's type of a tensor has no safetensors name.
        OSError: the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    described = dict(metadata) if metadata is not None else {"format": "pt"}
    with staging_folder(folder) as staging:
        staged: list[tuple[Path, dict[str, int]]] = []
        for shard in _shards(_once(tensors), max_shard_bytes):
            path = staging / str(len(staged))
            _write_shard(path, shard, described)
            staged.append((path, {name: tensor.nbytes for name, tensor in shard.items()}))
        if len(staged) > 1:
            return _publish_shards(folder, staged)
        return _publish_single(folder, staged[0][0])


def _once(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Leave out tensors that were already seen, and refuse names that were."""
    names: set[str] = set()
    # A weak reference keeps the storage's address from being used again, but not its memory.
    seen: dict[tuple[object, ...], StorageWeakRef] = {}
    for name, tensor in tensors:
        if name in names or name == "__metadata__":
            raise ValueError(f"cannot write two tensors under the name {name!r}: rename one")
        names.add(name)
        storage = StorageWeakRef(tensor.untyped_storage())
        place = (
            storage.cdata,
            tensor.storage_offset(),
            tensor.shape,
            tensor.stride(),
            tensor.dtype,
        )
        if seen.setdefault(place, storage) is storage or tensor.numel() == 0:
            yield name, tensor


def _shards(tensors: Iterable[tuple[str, Tensor]], limit: int) -> Iterator[Shard]:
    """At least one run of tensors, each of at most `limit` bytes or a single tensor."""
    shard: Shard = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _write_shard(path: Path, shard: Shard, metadata: Mapping[str, str]) -> None:
    # Widest numbers first, so that each tensor starts on a multiple of its number size.
    ordered = sorted(shard.items(), key=lambda item: -item[1].dtype.itemsize)
    header = _header(ordered, metadata)
    needed = len(header) + sum(tensor.nbytes for tensor in shard.values())
    require_space(path.parent, needed, "a checkpoint")
    with explain_full_disk(path.parent, needed, "a checkpoint"), path.open("wb") as file:
        file.write(header)
        for _, tensor in ordered:
            _write_numbers(file, tensor)
        file.flush()
        os.fsync(file.fileno())


def _header(tensors: list[tuple[str, Tensor]], metadata: Mapping[str, str]) -> bytes:
    fields: dict[str, object] = {"__metadata__": dict(metadata)}
    position = 0
    for name, tensor in tensors:
        if tensor.dtype not in FORMATS:
            raise ValueError(f"tensor {name!r} is {tensor.dtype}, which safetensors cannot store")
        end = position + tensor.nbytes
        fields[name] = {
            "dtype": FORMATS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_numbers(file: BinaryIO, tensor: Tensor) -> None:
    flat = tensor.detach().cpu().contiguous().view(-1)
    if flat.numel():
        file.write(flat.view(torch.uint8).numpy().data)


def _publish_single(folder: Path, staged: Path) -> list[Path]:
    old = _old_weights(folder)
    os.replace(staged, folder / WEIGHTS)  # from here on readers prefer it to any index
    sync_folder(folder)
    _remove(old - {folder / WEIGHTS})
    return [folder / WEIGHTS]


def _publish_shards(folder: Path, staged: list[tuple[Path, dict[str, int]]]) -> list[Path]:
    old = _old_weights(folder)
    names = _shard_names(folder, len(staged))
    weight_map = {
        tensor: name for name, (_, sizes) in zip(names, staged, strict=True) for tensor in sizes
    }
    total = sum(sum(sizes.values()) for _, sizes in staged)
    index = staged[0][0].with_name(INDEX)
    _write_index(index, {"metadata": {"total_size": total}, "weight_map": weight_map})
    for name, (path, _) in zip(names, staged, strict=True):
        os.replace(path, folder / name)
    os.replace(index, folder / INDEX)  # the old index held until here
    sync_folder(folder)
    _remove(old - {folder / INDEX})
    return [folder / name for name in [*names, INDEX]]


def _write_index(path: Path, index: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(index, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _shard_names(folder: Path, count: int) -> list[str]:
    """The customary names, unless an older set of shards still in use has one of them."""

    def names(stem: str) -> list[str]:
        return [f"{stem}-{n:05}-of-{count:05}.safetensors" for n in range(1, count + 1)]

    customary = names("model")
    taken = any((folder / name).exists() for name in customary)
    return names(f"model-{secrets.token_hex(4)}") if taken else customary


def _old_weights(folder: Path) -> set[Path]:
    return {folder / INDEX, *folder.glob("model*.safetensors")}


def _remove(paths: set[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
