"""The header of a GGUF file: metadata and the table of tensors, versions 2 and 3.

Layout (ggml's docs/gguf.md): magic, version, number of tensors, number of metadata entries, the
entries, the table, padding to the alignment, then the tensors at offsets counted from there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from limner.checkpoints.tensors import CorruptFileError, MappedFile

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MOST_DIMENSIONS = 4  # ggml's own limit
DEEPEST_ARRAY = 4  # arrays of arrays are legal and unused; the limit keeps recursion finite
SMALLEST_ENTRY = 8 + 4 + 1  # an empty key, a type and a one-byte value
SMALLEST_TENSOR = 8 + 4 + 4 + 8  # an empty name, no dimensions, a type and an offset

NUMBERS: Mapping[int, str] = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
"""NumPy's name for each numeric type of a metadata value."""
TEXT, ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One row of the table of tensors, already checked against the file.

    `shape` is in PyTorch's order (GGUF stores it reversed); `offset` counts from the start of the
    file.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    offset: int
    bytes: int
    file: MappedFile

    @property
    def end(self) -> int:
        """The first byte after the tensor."""
        return self.offset + self.bytes


def read_header(file: MappedFile) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
    """Metadata and tensors of one file.

    Raises:
        CorruptFileError: not a GGUF file of a known version, or a size in it cannot be true.
    """
    reader = _Reader(file)
    reader.check_version()
    tensor_count = reader.count("number of tensors", SMALLEST_TENSOR)
    entry_count = reader.count("number of metadata entries", SMALLEST_ENTRY)
    metadata = reader.metadata(entry_count)
    rows = [reader.tensor_row() for _ in range(tensor_count)]
    alignment = _alignment(file.path, metadata)
    data_start = -(-reader.position // alignment) * alignment
    return metadata, _place(file, rows, data_start, alignment)


class _Reader:
    """A position in the file that never moves past the end."""

    def __init__(self, file: MappedFile) -> None:
        self.path = file.path
        self.buffer = file.buffer
        self.size = file.size
        self.position = 0

    def check_version(self) -> None:
        magic = self.buffer[self.skip(4, "magic") : 4]
        if magic != MAGIC:
            raise CorruptFileError(
                self.path, f"it starts with {magic!r}, not {MAGIC!r}", "give a GGUF file"
            )
        version = int(self.number("<u4", "version"))
        if version & 0xFFFF == 0:
            raise CorruptFileError(
                self.path,
                "the file is big-endian",
                "convert it with `gguf-convert-endian PATH little`",
            )
        if version not in VERSIONS:
            raise CorruptFileError(
                self.path,
                f"GGUF version {version} is none of {VERSIONS}",
                "convert the model again",
            )

    def skip(self, length: int, field: str) -> int:
        """Step over `length` bytes and return where they start."""
        start = self.position
        if length > self.size - start:
            raise CorruptFileError(
                self.path,
                f"the file ends at {self.size} bytes but {field} needs {start + length}",
            )
        self.position = start + length
        return start

    def number(self, kind: str, field: str) -> Any:
        layout = np.dtype(kind)
        start = self.skip(layout.itemsize, field)
        return np.frombuffer(self.buffer, layout, count=1, offset=start)[0].item()

    def count(self, field: str, smallest: int) -> int:
        """A number of things of at least `smallest` bytes each, which must fit in the rest."""
        count = int(self.number("<u8", field))
        room = (self.size - self.position) // smallest
        if count > room:
            raise CorruptFileError(
                self.path,
                f"{field} is {count}, but a file of {self.size} bytes has room for {room}",
            )
        return count

    def text(self, field: str) -> str:
        length = self.count(f"length of {field}", 1)
        start = self.skip(length, field)
        return self._decode(self.buffer[start : start + length], field)

    def texts(self, count: int, field: str) -> list[str]:
        """`count` strings: hundreds of thousands in a vocabulary, hence no method calls inside."""
        buffer, size, position = self.buffer, self.size, self.position
        read_length = Struct("<Q").unpack_from
        found: list[bytes] = []
        for _ in range(count):
            start = position + 8
            position = start + read_length(buffer, position)[0] if start <= size else size + 1
            if position > size:
                problem = f"the file ends at {size} bytes, inside string {len(found)} of {field}"
                raise CorruptFileError(self.path, problem)
            found.append(buffer[start:position])
        self.position = position
        try:
            return [text.decode() for text in found]
        except UnicodeDecodeError:
            return [self._decode(text, field) for text in found]

    def _decode(self, text: bytes, field: str) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise CorruptFileError(self.path, f"{field} is not UTF-8: {text[:40]!r}") from None

    def metadata(self, count: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for _ in range(count):
            key = self.text("a metadata key")
            if key in entries:
                raise CorruptFileError(self.path, f"the metadata names {key!r} twice")
            entries[key] = self.value(int(self.number("<u4", f"type of {key!r}")), key)
        return entries

    def value(self, kind: int, key: str, depth: int = 0) -> Any:
        if kind in NUMBERS:
            return self.number(NUMBERS[kind], repr(key))
        if kind == TEXT:
            return self.text(repr(key))
        if kind == ARRAY and depth < DEEPEST_ARRAY:
            return self.array(key, depth)
        raise CorruptFileError(self.path, f"metadata {key!r} has the unknown type {kind}")

    def array(self, key: str, depth: int) -> Any:
        kind = int(self.number("<u4", f"element type of {key!r}"))
        field = f"length of {key!r}"
        if kind in NUMBERS:
            layout = np.dtype(NUMBERS[kind])
            count = self.count(field, layout.itemsize)
            start = self.skip(count * layout.itemsize, repr(key))
            return np.frombuffer(self.buffer, layout, count, start).copy()
        if kind == TEXT:
            return self.texts(self.count(field, 8), repr(key))
        return [self.value(kind, key, depth + 1) for _ in range(self.count(field, 4))]

    def tensor_row(self) -> "_Row":
        name = self.text("a tensor name")
        field = f"tensor {name!r}"
        dimensions = int(self.number("<u4", f"number of dimensions of {field}"))
        if dimensions > MOST_DIMENSIONS:
            problem = f"{field} has {dimensions} dimensions, more than {MOST_DIMENSIONS}"
            raise CorruptFileError(self.path, problem)
        sizes = [int(self.number("<u8", f"shape of {field}")) for _ in range(dimensions)]
        kind = int(self.number("<u4", f"type of {field}"))
        offset = int(self.number("<u8", f"offset of {field}"))
        return _Row(name, tuple(reversed(sizes)), kind, offset)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table as written, unchecked."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


def _alignment(path: Path, metadata: Mapping[str, Any]) -> int:
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or value < 8 or value & (value - 1):
        problem = f"general.alignment is {value!r}, not a power of two of at least 8"
        raise CorruptFileError(path, problem)
    return value


def _place(
    file: MappedFile, rows: list[_Row], data_start: int, alignment: int
) -> dict[str, GGUFTensor]:
    tensors: dict[str, GGUFTensor] = {}
    for row in rows:
        if row.name in tensors:
            raise CorruptFileError(file.path, f"the table names tensor {row.name!r} twice")
        if row.offset % alignment:
            raise CorruptFileError(
                file.path,
                f"tensor {row.name!r} has offset {row.offset}, no multiple of {alignment}",
            )
        tensors[row.name] = _tensor(file, row, data_start)
    _refuse_overlap(file.path, tensors)
    return tensors


def _tensor(file: MappedFile, row: _Row, data_start: int) -> GGUFTensor:
    format, size = _format_and_bytes(file.path, row)
    tensor = GGUFTensor(row.name, format, row.shape, data_start + row.offset, size, file)
    if tensor.end > file.size:
        raise CorruptFileError(
            file.path,
            f"the file ends at {file.size} bytes but tensor {row.name!r} needs {tensor.end}",
        )
    return tensor


def _format_and_bytes(path: Path, row: _Row) -> tuple[str, int]:
    try:
        kind = GGMLQuantizationType(row.kind)
    except ValueError:
        problem = f"tensor {row.name!r} has the unknown type {row.kind}"
        raise CorruptFileError(path, problem, "update gguf with `pip install -U gguf`") from None
    weights, size = GGML_QUANT_SIZES[kind]
    width = row.shape[-1] if row.shape else 1
    if 0 in row.shape or width % weights:
        raise CorruptFileError(
            path,
            f"tensor {row.name!r} of shape {row.shape} is not whole blocks of {weights} weights",
        )
    return kind.name, math.prod(row.shape) // weights * size


def _refuse_overlap(path: Path, tensors: Mapping[str, GGUFTensor]) -> None:
    ordered = sorted(tensors.values(), key=lambda tensor: tensor.offset)
    for first, second in pairwise(ordered):
        if first.end > second.offset:
            raise CorruptFileError(
                path,
                f"tensor {second.name!r} starts at byte {second.offset}, inside tensor "
                f"{first.name!r} which ends at {first.end}",
            )
