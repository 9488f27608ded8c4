"""Safetensors: one file, or a folder of shards with an index, as transformers writes them."""

from collections.abc import Iterable, Mapping
from pathlib import Path, PureWindowsPath

import torch
from torch import Tensor

from limner.checkpoints.safetensors_header import (
    DTYPES,
    INDEX,
    WEIGHTS,
    StoredTensor,
    parse_json,
    read_header,
)
from limner.checkpoints.safetensors_writing import write_safetensors
from limner.checkpoints.tensors import CorruptFileError, MappedFile

__all__ = ["INDEX", "WEIGHTS", "SafetensorsFile", "SafetensorsFolder", "write_safetensors"]


class StoredTensors:
    """Tensors of one or more safetensors files, read by memory map as they are asked for.

    Attributes:
        path: the file or folder, for messages.
        metadata: the `__metadata__` of the (first) file.
        tensors: every tensor by name.
    """

    def __init__(
        self, path: Path, metadata: Mapping[str, str], tensors: Mapping[str, StoredTensor]
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.tensors = tensors

    def names(self) -> Iterable[str]:
        """The names of all tensors, in the order of the files."""
        return self.tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return self.tensor(name).shape

    def format(self, name: str) -> str:
        """How its numbers are stored, such as "BF16"."""
        return self.tensor(name).format

    def tensor(self, name: str) -> StoredTensor:
        """Where and how one tensor is stored.

        Raises:
            ValueError: no tensor has this name.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.path} has no tensor {name!r} among its {len(self.tensors)}")
        return self.tensors[name]

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, as stored unless `dtype` is given; a view of the file where types agree.

        Raises:
            ValueError: no tensor has this name.
        """
        tensor = self.tensor(name)
        stored = DTYPES[tensor.format]
        view = tensor.file.view(tensor.start, tensor.end, stored, tensor.shape)
        return view.to(dtype or stored)


class SafetensorsFile(StoredTensors):
    """One safetensors file."""

    def __init__(self, path: str | Path) -> None:
        """Read the header.

        Raises:
            CorruptFileError: a size or offset in it cannot be true.
        """
        super().__init__(Path(path), *read_header(MappedFile(Path(path))))


class SafetensorsFolder(StoredTensors):
    """The weights in a Hugging Face folder: `model.safetensors`, or shards named by its index."""

    def __init__(self, folder: str | Path) -> None:
        """Read the header of every shard.

        Raises:
            CorruptFileError: a header cannot be true, or the index and the shards disagree.
            FileNotFoundError: there are no safetensors, or a shard is missing.
        """
        folder = Path(folder)
        # transformers looks in this order too, which is what makes replacing one by the other safe.
        if (folder / WEIGHTS).is_file():
            super().__init__(folder, *read_header(MappedFile(folder / WEIGHTS)))
        elif (folder / INDEX).is_file():
            super().__init__(folder, *_read_shards(folder))
        else:
            raise FileNotFoundError(f"{folder} holds neither {WEIGHTS} nor {INDEX}")


def _read_shards(folder: Path) -> tuple[Mapping[str, str], dict[str, StoredTensor]]:
    weight_map = _weight_map(folder)
    headers = {shard: _read_shard(folder, shard) for shard in sorted(set(weight_map.values()))}
    tensors: dict[str, StoredTensor] = {}
    for name, shard in weight_map.items():
        if name not in headers[shard][1]:
            problem = f"it says that tensor {name!r} is in {shard}, which does not hold it"
            raise CorruptFileError(folder / INDEX, problem)
        tensors[name] = headers[shard][1][name]
    return next(iter(headers.values()))[0], tensors


def _read_shard(folder: Path, shard: str) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    if not (folder / shard).is_file():
        raise FileNotFoundError(f"{folder / shard} is missing, though {INDEX} names it")
    return read_header(MappedFile(folder / shard))


def _weight_map(folder: Path) -> dict[str, str]:
    file = MappedFile(folder / INDEX)
    weight_map = parse_json(file.buffer[:], file).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptFileError(file.path, "it has no table `weight_map` of tensors and their files")
    for name, shard in weight_map.items():
        # Both kinds of separator, and drive letters, on every platform: a folder may travel.
        if (
            not isinstance(shard, str)
            or shard in ("", "..")
            or PureWindowsPath(shard).name != shard
        ):
            problem = (
                f"tensor {name!r} is said to be in {shard!r}, which is not a file of this folder"
            )
            raise CorruptFileError(file.path, problem)
    return weight_map
