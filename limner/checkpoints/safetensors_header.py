"""The header of a safetensors file: eight bytes of length, JSON, then the numbers without a gap."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch

from limner.checkpoints.tensors import CorruptFileError, MappedFile

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

# The limit of the safetensors library. Parsing takes a small multiple of it in memory.
LONGEST_HEADER = 100_000_000

DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
"""The PyTorch type behind each format name of a safetensors header."""
FORMATS: Mapping[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file, already checked; `start` and `end` count from the start of the file."""

    name: str
    format: str
    shape: tuple[int, ...]
    start: int
    end: int
    file: MappedFile


def read_header(file: MappedFile) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    """Metadata and tensors of one file.

    Raises:
        CorruptFileError: the header is not JSON of the right form, or its sizes cannot be true.
    """
    length = _header_length(file)
    fields = parse_json(file.buffer[8 : 8 + length], file)
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise CorruptFileError(file.path, f"__metadata__ is {str(metadata)[:40]!r}, not a table")
    data_start = 8 + length
    tensors = {name: _tensor(file, name, fields[name], data_start) for name in fields}
    _require_cover(file, tensors, data_start)
    return metadata, tensors


def parse_json(text: bytes, file: MappedFile) -> dict[str, Any]:
    """A JSON table whose keys are all different.

    Raises:
        CorruptFileError: it is anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a name is used twice")
        return table

    try:
        fields = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(file.path, f"the header is not valid JSON ({error})") from None
    if not isinstance(fields, dict):
        raise CorruptFileError(file.path, f"the header is {text[:20]!r}, not a JSON table")
    return fields


def _header_length(file: MappedFile) -> int:
    length = int.from_bytes(file.buffer[:8], "little")
    room = min(max(file.size - 8, 0), LONGEST_HEADER)
    if not 0 < length <= room:
        raise CorruptFileError(
            file.path,
            f"its header claims {length} bytes, but its {file.size} bytes have room for {room}",
        )
    return length


def _tensor(file: MappedFile, name: str, entry: Any, data_start: int) -> StoredTensor:
    format, shape, (start, end) = _entry(file, name, entry)
    needed = math.prod(shape) * DTYPES[format].itemsize
    if end - start != needed:
        raise CorruptFileError(
            file.path,
            f"tensor {name!r} of shape {list(shape)} in {format} needs {needed} bytes, but its "
            f"offsets {start} to {end} hold {end - start}",
        )
    if data_start + end > file.size:
        raise CorruptFileError(
            file.path,
            f"the file ends at {file.size} bytes but tensor {name!r} needs {data_start + end}",
        )
    return StoredTensor(name, format, shape, data_start + start, data_start + end, file)


def _entry(file: MappedFile, name: str, entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    fields = entry if isinstance(entry, dict) else {}
    format, shape = fields.get("dtype"), fields.get("shape")
    offsets = fields.get("data_offsets")
    if not isinstance(format, str) or format not in DTYPES:
        raise CorruptFileError(
            file.path, f"tensor {name!r} has the unknown dtype {str(format)[:40]!r}"
        )
    if not _sizes(shape):
        raise CorruptFileError(
            file.path, f"tensor {name!r} has the impossible shape {str(shape)[:40]}"
        )
    if not _sizes(offsets) or len(offsets) != 2:
        raise CorruptFileError(
            file.path, f"tensor {name!r} has impossible offsets {str(offsets)[:40]}"
        )
    return format, tuple(shape), (offsets[0], offsets[1])


def _sizes(value: Any) -> TypeGuard[list[int]]:
    """Whether this is a list of sizes. Without the upper limit a product of them takes minutes."""
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size < 1 << 63 for size in value
    )


def _require_cover(file: MappedFile, tensors: Mapping[str, StoredTensor], position: int) -> None:
    """Tensors follow one another from the header to the end: no byte is unused or used twice."""
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != position:
            fault = "overlaps another" if tensor.start < position else "leaves a gap"
            raise CorruptFileError(
                file.path,
                f"tensor {tensor.name!r} starts at byte {tensor.start}, not {position}: it {fault}",
            )
        position = tensor.end
    if position != file.size:
        problem = f"its tensors end at byte {position} but the file at {file.size}"
        raise CorruptFileError(file.path, problem)
