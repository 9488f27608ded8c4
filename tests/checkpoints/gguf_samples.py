"""Small GGUF files made by gguf-py, and the bytes of hostile ones."""

import struct
from pathlib import Path

import gguf
import numpy as np
import torch

BLOCK_FORMATS = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
# Where the float16 numbers of a block start; random bytes there would be infinities.
HALVES = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def some_blocks(format: str, rows: int, blocks_per_row: int, seed: int = 0) -> np.ndarray:
    """(rows, bytes) of valid blocks: quantised by gguf-py where it can, else random bytes."""
    random = np.random.default_rng(seed)
    kind = gguf.GGMLQuantizationType[format]
    weights, size = gguf.GGML_QUANT_SIZES[kind]
    if format not in HALVES:
        values = random.standard_normal((rows, blocks_per_row * weights)).astype(np.float32)
        return gguf.quantize(values, kind)
    blocks = random.integers(0, 256, (rows * blocks_per_row, size), dtype=np.uint8)
    for start in HALVES[format]:
        scales = random.uniform(-2, 2, len(blocks)).astype(np.float16)
        blocks[:, start : start + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(rows, -1)


def write_gguf(path: Path, format: str = "Q4_1", rows: int = 3, vocabulary: int = 20) -> Path:
    """A model of three tensors and a vocabulary, as gguf-py writes it."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.rope.freq_base", 100000.0)
    writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_string("general.name", "smål 模型")
    writer.add_array("tokenizer.ggml.tokens", [f"tökën{n}" for n in range(vocabulary)])
    writer.add_array("tokenizer.ggml.token_type", list(range(vocabulary)))
    writer.add_tensor("norm", np.arange(5, dtype=np.float32))
    kind = gguf.GGMLQuantizationType[format]
    writer.add_tensor("blocks", some_blocks(format, rows, 2), raw_dtype=kind)
    writer.add_tensor("half", np.arange(6, dtype=np.float16).reshape(2, 3))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text(value: str) -> bytes:
    """A string as GGUF stores it."""
    encoded = value.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def entry(key: str, kind: int, value: bytes) -> bytes:
    """A metadata entry."""
    return text(key) + struct.pack("<I", kind) + value


def row(name: str, sizes: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    """A row of the table of tensors; `sizes` in GGUF's order."""
    fields = struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)
    return text(name) + fields


def gguf_bytes(
    entries: tuple[bytes, ...] = (),
    rows: tuple[bytes, ...] = (),
    data: int = 256,
    counts: tuple[int, int] | None = None,
    version: bytes = b"\x03\0\0\0",
) -> bytes:
    """A whole file, with counts that may lie."""
    tensor_count, entry_count = counts or (len(rows), len(entries))
    head = b"GGUF" + version + struct.pack("<QQ", tensor_count, entry_count)
    head += b"".join(entries) + b"".join(rows)
    return head + bytes(-len(head) % 32) + bytes(data)


def read_there(path):
    """Each tensor as gguf-py reads it: its format and its numbers."""
    return {
        tensor.name: (
            tensor.tensor_type.name,
            torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type)),
        )
        for tensor in gguf.GGUFReader(path).tensors
    }
