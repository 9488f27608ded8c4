"""What every checkpoint file offers: named tensors, read by memory map, never trusted.

A header is written by strangers, so each size in it is compared with the length of the file before
anything is sliced or allocated; what does not add up is a `CorruptFileError`.
"""

import mmap
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

LONGEST_PROBLEM = 400
DOWNLOAD_AGAIN = "download it again with `limner pull --force NAME`"


class CorruptFileError(ValueError):
    """A checkpoint that contradicts itself. The message names file, field, value and fix."""

    def __init__(self, path: Path, problem: str, fix: str = DOWNLOAD_AGAIN) -> None:
        # A name in a hostile header can be as long as the file.
        shown = problem if len(problem) <= LONGEST_PROBLEM else problem[:LONGEST_PROBLEM] + "..."
        super().__init__(f"{path}: {shown}: {fix}")


class TensorSource(Protocol):
    """Named tensors somewhere on disk."""

    def names(self) -> Iterable[str]:
        """The names of all tensors, in the order of the file."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor, outermost dimension first as in PyTorch."""

    def format(self, name: str) -> str:
        """How its numbers are stored: "F32", "BF16", "I64", or a block format such as "Q4_1"."""

    def read(self, name: str, dtype: torch.dtype | None = ...) -> Tensor:
        """One tensor on the CPU, a view of the memory map where no conversion is needed.

        Without `dtype` it is the natural one of the source: as stored for safetensors, float32 for
        GGUF, whose files mix formats from tensor to tensor.

        Raises:
            ValueError: no tensor has this name.
        """


class MappedFile:
    """A file as one read-as-needed tensor of bytes.

    The map is private and copy-on-write: an optimizer that steps on a tensor viewing it never
    changes the file. Pages are not reserved, so a file larger than memory can be mapped.
    """

    def __init__(self, path: Path) -> None:
        """Map a file.

        Raises:
            CorruptFileError: the file is empty.
            OSError: it cannot be opened.
        """
        self.path = path
        self.size = path.stat().st_size
        if self.size == 0:
            raise CorruptFileError(path, "the file is empty")
        with path.open("rb") as file:
            self.buffer = _map_privately(file.fileno())
        self.bytes = torch.frombuffer(self.buffer, dtype=torch.uint8)  # (size,)

    def view(self, start: int, end: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """Bytes `start` to `end` as numbers; copied only if `start` does not suit their size."""
        section = self.bytes[start:end]
        if start % dtype.itemsize:
            section = section.clone()
        return section.view(dtype).view(shape)


def _map_privately(descriptor: int) -> mmap.mmap:
    if sys.platform != "linux":
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000)  # named by Python only from 3.13 on
    writable = mmap.PROT_READ | mmap.PROT_WRITE
    return mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE | no_reserve, prot=writable)
