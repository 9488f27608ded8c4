"""Pickled PyTorch weights: refused unless asked for, since a pickle runs what its author wrote."""

import pickle
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from limner.checkpoints.tensors import CorruptFileError

NAMES = ("pytorch_model.bin", "model.pt", "model.pth", "consolidated.00.pth")
SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FORMATS: Mapping[torch.dtype, str] = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float64: "F64",
}
# What PyTorch's restricted unpickler raises on code, and on bytes that are no pickle.
DAMAGE = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, struct.error)


class PickleRefusedError(ValueError):
    """A pickle was given without leave to open it."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is a pickle, which can run code when opened: convert it to safetensors, "
            "or pass allow_pickle=True if you trust its author"
        )


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, bare or in PyTorch's zip, by its content and then its name."""
    with path.open("rb") as file:
        start = file.read(4)
    protocol_two_or_later = start[:1] == b"\x80" and start[1:2] in (
        b"\x02",
        b"\x03",
        b"\x04",
        b"\x05",
    )
    return protocol_two_or_later or start == b"PK\x03\x04" or path.suffix in SUFFIXES


class PickledTensors:
    """The tensors of a pickled state dictionary, opened with `weights_only` and by memory map."""

    def __init__(self, path: str | Path) -> None:
        """Open a pickle of tensors; anything else in it is refused, not run.

        Raises:
            CorruptFileError: it is damaged, or holds more than tensors by name.
        """
        self.path = Path(path)
        loaded = _load(self.path)
        if not isinstance(loaded, dict) or not all(
            isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in loaded.items()
        ):
            raise CorruptFileError(
                self.path, "it holds something other than tensors by name", "give weights"
            )
        self.tensors: Mapping[str, Tensor] = loaded

    def names(self) -> Iterable[str]:
        """The names of all tensors."""
        return self.tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return tuple(self.read(name).shape)

    def format(self, name: str) -> str:
        """How its numbers are stored, such as "F32"."""
        dtype = self.read(name).dtype
        return FORMATS.get(dtype, str(dtype).removeprefix("torch."))

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, as stored unless `dtype` is given.

        Raises:
            ValueError: no tensor has this name.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.path} has no tensor {name!r} among its {len(self.tensors)}")
        return self.tensors[name].to(dtype or self.tensors[name].dtype)


def _load(path: Path) -> object:
    # Only the zip archive, PyTorch's format since 1.6, can be mapped; and PyTorch takes the suffix
    # .safetensors of a path at its word.
    mapped = zipfile.is_zipfile(path) and path.suffix != ".safetensors"
    try:
        with path.open("rb") as file:
            source = path if mapped else file
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except DAMAGE as error:
        first_line = str(error).partition("\n")[0][:200]
        raise CorruptFileError(path, f"not a pickle of weights alone ({first_line})") from error
