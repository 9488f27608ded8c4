"""Writing GGUF files that llama.cpp opens: header, tokenizer and weights, all or nothing."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, LlamaFileType
from gguf.quants import quantize
from numpy.typing import NDArray
from torch import Tensor

from limner.checkpoints.checkpoint import named_weights, plain
from limner.checkpoints.disk import (
    explain_full_disk,
    require_space,
    staging_folder,
    sync_folder,
)
from limner.checkpoints.gguf_packed import packed_format, to_blocks
from limner.kernels import PackedWeight
from limner.models.families import GGUF_FAMILIES, GGUFFamily, find_family
from limner.models.families.gguf_header import GGUFHeader
from limner.models.network import Network
from limner.models.translation import Translation
from limner.nn.packed import Packed
from limner.tokenizers import Tokenizer
from limner.tokenizers.gguf_writing import tokenizer_to_gguf

log = logging.getLogger(__name__)

#: The formats that can be written, and what the file as a whole is called then.
FORMATS: Mapping[str, LlamaFileType] = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q5_1": LlamaFileType.MOSTLY_Q5_1,
    "Q5_0": LlamaFileType.MOSTLY_Q5_0,
    "Q4_1": LlamaFileType.MOSTLY_Q4_1,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
#: Instead of one of them: all packed matrices keep their numbers, the others become F16.
STORED = "stored"
#: Small tables that llama.cpp takes in F32 only, or keeps so, by the last part of their names.
PRECISE = ("ffn_gate_inp", "position_embd", "token_types", "attn_rel_b")
#: The tables of the vocabulary; the first is left out when it is the second.
OUTPUT, EMBEDDING = "output.weight", "token_embd.weight"
QUANTIZATION_VERSION = 2

Array = NDArray[Any]


@dataclass(frozen=True)
class _Row:
    """One line of the table of tensors."""

    name: str
    shape: tuple[int, ...]
    format: GGMLQuantizationType

    @property
    def bytes(self) -> int:
        weights, size = GGML_QUANT_SIZES[self.format]
        return prod(self.shape) // weights * size


def save_gguf(
    network: Network,
    path: Path,
    tokenizer: Tokenizer | None = None,
    format: str = "F16",
    *,
    vocabulary: str = "Q8_0",
    metadata: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a GGUF file that llama.cpp opens.

    Tensors are encoded one at a time, so never two copies of the model exist. Norms, biases and
    other small tables are F32 in every format. Rows that no block divides are F16, and the table
    that logits are computed from is at least Q8_0, as llama.cpp does in its way. Matrices packed in
    8 or 4 bits that are in the format already are written as they are; in the format "stored" all
    packed ones are, so the file computes what the network does, and the other matrices are F16.

    Args:
        network: of a family that llama.cpp knows.
        path: the file; one that is there is replaced when the new one is complete.
        tokenizer: the model's; without it the file holds token ids only.
        format: a key of `FORMATS`, or `STORED`.
        vocabulary: in `STORED`, the format of token vectors and head that are not packed.
        metadata: more keys for the header.
        progress: called with (tensors written, tensors in all).

    Raises:
        ValueError: the format is unknown, or llama.cpp would compute or tokenize otherwise.
        OSError: the disk is full.
    """
    if format != STORED:
        check_format(format)
    family = _family_of(network)
    header = family.write_gguf(network.config)
    translations = tuple(family.gguf_translations(network.config))
    rows = list(_table(network, header, translations, format, vocabulary))
    kind = _most_used(rows) if format == STORED else format
    fields = {**_general(path, kind), **header.metadata, **_vocabulary(network, tokenizer)}
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(row.bytes for row in rows)
    require_space(path.parent, needed, "a GGUF file")
    staging = staging_folder(path.parent, f".{path.name}.unfinished")
    with staging as folder, explain_full_disk(path.parent, needed, "a GGUF file"):
        tensors = _tensors(header, translations, named_weights(network), "cpu", format)
        _write(folder / "model.gguf", fields | dict(metadata or {}), rows, tensors, progress)
        os.replace(folder / "model.gguf", path)
        sync_folder(path.parent)


def check_format(format: str) -> None:
    """ValueError unless files can be written in this format."""
    if format in FORMATS:
        return
    reason = "cannot be written" if format in GGMLQuantizationType.__members__ else "is unknown"
    hint = ": make it of an F16 file with llama-quantize" if reason.startswith("cannot") else ""
    raise ValueError(
        f"the GGUF format '{format}' {reason}{hint}; those written are {', '.join(FORMATS)}"
    )


def check_gguf(network: Network, tokenizer: Tokenizer | None = None) -> None:
    """ValueError unless a GGUF file can hold this network and tokenizer, whatever the format."""
    _family_of(network).write_gguf(network.config)
    _vocabulary(network, tokenizer)


def count_kept(network: Network, format: str) -> int:
    """How many numbers of packed matrices a file in this format keeps as they are."""
    family = _family_of(network)
    translations = tuple(family.gguf_translations(network.config))
    header = family.write_gguf(network.config)
    found = _tensors(header, translations, named_weights(network), "meta", format)
    blocks = ((content, GGML_QUANT_SIZES[content.packed]) for content in found if content.packed)
    return sum(content.tensor.numel() // size * weights for content, (weights, size) in blocks)


def _family_of(network: Network) -> GGUFFamily:
    name = network.config.family
    family = find_family(name)
    if not hasattr(family, "write_gguf"):
        known = ", ".join(sorted(set(GGUF_FAMILIES.values())))
        raise ValueError(f"models of the family '{name}' have no GGUF form; these have: {known}")
    return cast("GGUFFamily", family)


def _general(path: Path, format: str) -> dict[str, Any]:
    return {
        "general.type": "model",
        "general.name": path.stem,
        "general.file_type": int(FORMATS[format]),
        "general.quantization_version": QUANTIZATION_VERSION,
    }


def _most_used(rows: list[_Row]) -> str:
    """The format that most numbers outside the vocabulary's tables have."""
    numbers = Counter[str]()
    for row in rows:
        if row.name not in (EMBEDDING, OUTPUT):
            numbers[row.format.name] += prod(row.shape)
    return numbers.most_common(1)[0][0]


def _vocabulary(network: Network, tokenizer: Tokenizer | None) -> dict[str, Any]:
    if tokenizer is None:
        return {"tokenizer.ggml.model": "none"}
    return tokenizer_to_gguf(tokenizer, network.config.vocabulary)


def _table(
    network: Network,
    header: GGUFHeader,
    translations: tuple[Translation, ...],
    format: str,
    vocabulary: str,
) -> Iterator[_Row]:
    """Names, shapes and formats of all tensors, worked out without computing any."""
    found = list(_tensors(header, translations, named_weights(network), "meta", format))
    tied = OUTPUT not in {content.name for content in found}
    for name, tensor, packed in found:
        shape = tuple(tensor.shape)
        if packed is None:
            stands_for = format
            if format == STORED:
                stands_for = vocabulary if name in (EMBEDDING, OUTPUT) else "F16"
            yield _Row(name, shape, _format_of(name, shape, stands_for, tied))
        else:
            weights, size = GGML_QUANT_SIZES[packed]
            yield _Row(name, (shape[0], shape[1] // size * weights), packed)


def _format_of(name: str, shape: tuple[int, ...], format: str, tied: bool) -> GGMLQuantizationType:
    if len(shape) < 2 or _is_precise(name):
        return GGMLQuantizationType.F32
    if name == (EMBEDDING if tied else OUTPUT):
        format = "Q8_0" if format.startswith("Q") else format
    weights, _ = GGML_QUANT_SIZES[GGMLQuantizationType[format]]
    return GGMLQuantizationType[format if shape[-1] % weights == 0 else "F16"]


def _is_precise(name: str) -> bool:
    stem = name.removesuffix(".weight").rpartition(".")[2]
    return stem in PRECISE or stem.endswith("norm")


class _Content(NamedTuple):
    """A tensor in float32, or its `packed` blocks, uint8 (rows, bytes a row)."""

    name: str
    tensor: Tensor
    packed: GGMLQuantizationType | None = None


def _tensors(
    header: GGUFHeader,
    translations: tuple[Translation, ...],
    ours: Mapping[str, Tensor | Packed | None],
    device: str,
    format: str,
) -> Iterator[_Content]:
    """Every tensor of the file, computed when asked for; on the meta device its shape only."""
    for name, tensor in header.tensors.items():
        yield _Content(name, tensor)
    for rule in translations:
        weights = [ours[name] for name in rule.ours]
        packed = _packed_in(rule, weights)
        if packed is not None and format not in (STORED, packed.name):
            packed = None  # rounded again, as is asked for
        # Floats before what the rule computes, which would round once more in 16 bits.
        read = _as_float if packed is None else _as_blocks
        tensors = rule.save([read(weight, device) for weight in weights])
        for name, tensor in zip(rule.theirs, tensors, strict=True):
            yield _Content(name, tensor, packed)


def _packed_in(
    rule: Translation, weights: list[Tensor | Packed | None]
) -> GGMLQuantizationType | None:
    """The one block format that all of `weights` are in, if `rule` does no more than move rows."""
    packed = [weight for weight in weights if isinstance(weight, PackedWeight)]
    formats = {packed_format(weight) for weight in packed}
    if len(packed) < len(weights) or len(formats) > 1 or not rule.keeps_rows:
        return None
    if any(map(_is_precise, rule.theirs)):
        return None
    (format,) = formats
    return None if format is None else GGMLQuantizationType[format]


def _as_blocks(weight: Tensor | Packed | None, device: str) -> Tensor:
    """The blocks of a packed weight; on the meta device their shape only."""
    assert isinstance(weight, PackedWeight)
    if device != "meta":
        return to_blocks(weight)
    format = packed_format(weight)
    assert format is not None
    weights, size = GGML_QUANT_SIZES[GGMLQuantizationType[format]]
    return torch.empty(weight.outputs, weight.inputs // weights * size, device=device)


def _as_float(weight: Tensor | Packed | None, device: str) -> Tensor:
    """A weight in float32; on the meta device its shape only."""
    if device == "meta" and weight is not None:
        return torch.empty(weight.shape, device=device)
    return plain(weight).to(device, torch.float32)


def _write(
    path: Path,
    fields: Mapping[str, Any],
    rows: list[_Row],
    tensors: Iterator[_Content],
    progress: Callable[[int, int], None] | None,
) -> None:
    writer = GGUFWriter(path, fields["general.architecture"])
    for key, value in fields.items():
        _add(writer, key, value)
    for row in rows:
        kind = np.dtype(np.float32)  # overruled by the raw type
        writer.add_tensor_info(row.name, row.shape, kind, row.bytes, row.format)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for number, (row, content) in enumerate(zip(rows, tensors, strict=True), start=1):
            assert row.name == content.name
            writer.write_tensor_data(_encode(row, content.tensor))
            if progress is not None:
                progress(number, len(rows))
        _sync(writer)
    finally:
        writer.close()


def _sync(writer: GGUFWriter) -> None:
    assert writer.fout is not None
    for file in writer.fout:
        file.flush()
        os.fsync(file.fileno())


def _add(writer: GGUFWriter, key: str, value: object) -> None:
    """Add one key; whole numbers are uint32, others float32, as llama.cpp asks for."""
    if key == "general.architecture":  # added by the writer itself
        return
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case list() | bytes():
            writer.add_array(key, value)
        case _:
            raise AssertionError(f"{key} is {value!r}")


def _encode(row: _Row, tensor: Tensor) -> Array:
    """The numbers of a tensor in the format of its row; blocks are that already."""
    if tensor.dtype == torch.uint8:
        return tensor.contiguous().numpy()
    plain = tensor.float().contiguous()
    if row.format == GGMLQuantizationType.F16:
        largest = plain.abs().max().item() if plain.numel() else 0.0
        if largest > torch.finfo(torch.float16).max:
            raise ValueError(
                f"'{row.name}' holds {largest:g}, more than F16 can: write BF16 or F32"
            )
    encoded: Array = quantize(plain.numpy(), row.format)
    return encoded
