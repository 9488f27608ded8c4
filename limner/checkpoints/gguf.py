"""GGUF files: llama.cpp's single-file format, in one part or several."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor

from limner.checkpoints.gguf_blocks import UNPACK, dequantize
from limner.checkpoints.gguf_header import MAGIC, GGUFTensor, read_header
from limner.checkpoints.tensors import CorruptFileError, MappedFile
from limner.kernels import GGUFKind, PackedWeight, from_gguf
from limner.kernels.library import one_torch_thread

__all__ = ["MAGIC", "GGUFFile", "GGUFTensor"]

PLAIN: Mapping[str, torch.dtype] = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F64": torch.float64,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
"""Formats whose numbers PyTorch can view in place."""
PART_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class GGUFFile:
    """The metadata and tensors of a GGUF model, read by memory map as they are asked for.

    Attributes:
        metadata: numbers, strings, lists of strings and NumPy arrays by key, as in the first part.
        tensors: every tensor of every part by name.
    """

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]

    def __init__(self, path: str | Path) -> None:
        """Read the header of a file, or of all parts when `path` is one part of several.

        Raises:
            CorruptFileError: a size, offset or type in a header cannot be true.
            FileNotFoundError: the file, or one of its other parts, is missing.
        """
        self.path = Path(path)
        self.metadata, self.tensors = read_header(MappedFile(self.path))
        if self._number("split.count", 1) > 1:
            self._add_parts()

    def names(self) -> Iterable[str]:
        """The names of all tensors, in the order of the file."""
        return self.tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor, outermost dimension first."""
        return self.tensor(name).shape

    def format(self, name: str) -> str:
        """How a tensor is stored, by ggml's name for it, such as "Q4_1"."""
        return self.tensor(name).format

    def tensor(self, name: str) -> GGUFTensor:
        """Where and how one tensor is stored.

        Raises:
            ValueError: no tensor has this name.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.path} has no tensor {name!r} among its {len(self.tensors)}")
        return self.tensors[name]

    def blocks(self, name: str) -> Tensor:
        """The stored bytes in place: (rows, bytes of a row) uint8; a row is the last dimension."""
        tensor = self.tensor(name)
        rows = torch.Size(tensor.shape[:-1]).numel()
        return tensor.file.bytes[tensor.offset : tensor.end].view(rows, -1)

    def read(self, name: str, dtype: torch.dtype | None = torch.float32) -> Tensor:
        """One tensor as plain numbers; a view of the file when it is stored in that very type.

        Args:
            name: the tensor.
            dtype: the result's type; None keeps a plain type as stored and reads blocks as float32.

        Raises:
            ValueError: no such tensor, or a block format that limner does not know.
        """
        tensor = self.tensor(name)
        if tensor.format in PLAIN:
            stored = PLAIN[tensor.format]
            view = tensor.file.view(tensor.offset, tensor.end, stored, tensor.shape)
            return view.to(dtype or stored)
        if tensor.format not in UNPACK:
            raise ValueError(
                f"{self.path}: tensor {name!r} is stored as {tensor.format}, which limner cannot "
                f"read: take a file in one of {', '.join([*PLAIN, *UNPACK])}"
            )
        return self._read_blocks(tensor, dtype or torch.float32)

    def packed(self, name: str) -> PackedWeight | None:
        """A matrix as it is stored, in the kernels' form; None if they do not read its format."""
        kind = self.format(name)
        if kind not in get_args(GGUFKind) or len(self.shape(name)) != 2:
            return None
        with one_torch_thread():
            return from_gguf(self.blocks(name), cast("GGUFKind", kind))

    def _read_blocks(self, tensor: GGUFTensor, dtype: torch.dtype) -> Tensor:
        weights, size = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.format]]
        blocks = tensor.file.bytes[tensor.offset : tensor.end].view(
            -1, size
        )  # (N, bytes of a block)
        out = torch.empty(tensor.shape, dtype=dtype)
        assert blocks.shape[0] * weights == out.numel()
        dequantize(blocks, tensor.format, out)
        return out

    def _number(self, key: str, default: int) -> int:
        value = self.metadata.get(key, default)
        if not isinstance(value, int):
            raise CorruptFileError(self.path, f"metadata {key!r} is {value!r}, not a whole number")
        return value

    def _add_parts(self) -> None:
        paths = _part_paths(self.path, self._number("split.count", 1))
        headers = [read_header(MappedFile(path)) for path in paths]
        for index, (path, (metadata, _)) in enumerate(zip(paths, headers, strict=True)):
            place = (metadata.get("split.no"), metadata.get("split.count"))
            if place != (index, len(paths)):
                problem = f"split.no and split.count are {place}, not {(index, len(paths))}"
                raise CorruptFileError(path, problem)
        self.metadata = headers[0][0]
        self.tensors = _join(paths, [tensors for _, tensors in headers])
        expected = self._number("split.tensors.count", len(self.tensors))
        if expected != len(self.tensors):
            problem = (
                f"split.tensors.count is {expected} but the parts hold {len(self.tensors)} tensors"
            )
            raise CorruptFileError(paths[0], problem)


def _part_paths(path: Path, count: int) -> list[Path]:
    match = PART_NAME.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise CorruptFileError(
            path,
            f"it is one part of {count}, but its name does not end in -00001-of-{count:05}.gguf",
            "give the parts their original names",
        )
    paths = [
        path.with_name(f"{match['stem']}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)
    ]
    for part in paths:
        if not part.is_file():
            raise FileNotFoundError(f"{part} is missing: put all {count} parts in one folder")
    return paths


def _join(paths: list[Path], parts: list[dict[str, GGUFTensor]]) -> dict[str, GGUFTensor]:
    joined: dict[str, GGUFTensor] = {}
    for path, part in zip(paths, parts, strict=True):
        for name in part.keys() & joined.keys():
            raise CorruptFileError(
                path, f"tensor {name!r} is also in {joined[name].file.path.name}"
            )
        joined |= part
    return joined
