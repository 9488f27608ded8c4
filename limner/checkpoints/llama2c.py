"""Files of llama2.c (Karpathy 2023), version 0: a small Llama in float32 behind seven numbers.

L layers, D width, F inner width, Q query heads x head width, K key-value heads x head width, V
vocabulary.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.checkpoints.tensors import CorruptFileError, MappedFile

_HEADER = struct.Struct("<7i")
_UNKNOWN, _CONTROL, _NORMAL, _BYTE = 2, 3, 1, 6  # tokenizer.ggml.token_type


class Llama2CFile:
    """A TensorSource that speaks of its tensors and settings in the words of a GGUF file.

    Both formats keep the rows of queries and keys in Meta's order, so what reads the one reads the
    other. The tokenizer is the file `tokV.bin` or `tokenizer.bin` beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, MappedFile(path)
        sizes = _read_sizes(path)
        if sizes is None or self._file.size != _length(sizes):
            raise CorruptFileError(path, "its length is not what its seven numbers say")
        self._places = _places(sizes)
        self.metadata = _settings(sizes) | _tokenizer(path, abs(sizes[5]))

    def names(self) -> Iterable[str]:
        """The names of all tensors."""
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return self._places[name][1]

    def format(self, name: str) -> str:
        """Always float32."""
        assert name in self._places
        return "F32"

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor, a view of the memory map; ValueError if no tensor has this name."""
        if name not in self._places:
            raise ValueError(f"{self.path} has no tensor '{name}'")
        start, shape = self._places[name]
        tensor = self._file.view(start, start + 4 * math.prod(shape), torch.float32, shape)
        return tensor if dtype is None else tensor.to(dtype)


def is_llama2c(path: Path) -> bool:
    """Whether a file begins with seven numbers that add up to its length."""
    sizes = _read_sizes(path)
    return sizes is not None and path.stat().st_size == _length(sizes)


def _read_sizes(path: Path) -> tuple[int, ...] | None:
    """Width, inner width, layers, heads, key-value heads, vocabulary (< 0: own head), context."""
    with path.open("rb") as file:
        start = file.read(_HEADER.size)
    if len(start) < _HEADER.size:
        return None
    sizes = _HEADER.unpack(start)
    width, inner, layers, heads, shared, vocabulary, context = sizes
    if min(width, inner, layers, heads, shared, abs(vocabulary), context) < 1:
        return None
    return None if width % heads or heads % shared else sizes


def _shapes(sizes: tuple[int, ...]) -> list[tuple[str, bool, tuple[int, ...]]]:
    """The tensors in the order of the file: name, whether there is one a layer, shape."""
    width, inner, _, heads, shared, vocabulary, context = sizes
    keys, pairs = width // heads * shared, width // heads // 2
    tensors: list[tuple[str, bool, tuple[int, ...]]] = [
        ("token_embd", False, (abs(vocabulary), width)),
        ("attn_norm", True, (width,)),
        ("attn_q", True, (width, width)),
        ("attn_k", True, (keys, width)),
        ("attn_v", True, (keys, width)),
        ("attn_output", True, (width, width)),
        ("ffn_norm", True, (width,)),
        ("ffn_gate", True, (inner, width)),
        ("ffn_down", True, (width, inner)),
        ("ffn_up", True, (inner, width)),
        ("output_norm", False, (width,)),
        ("", False, (2, context, pairs)),  # cosines and sines, which we work out
    ]
    return tensors + ([("output", False, (-vocabulary, width))] if vocabulary < 0 else [])


def _length(sizes: tuple[int, ...]) -> int:
    layers = sizes[2]
    numbers = (math.prod(shape) * (layers if each else 1) for _, each, shape in _shapes(sizes))
    return _HEADER.size + 4 * sum(numbers)


def _places(sizes: tuple[int, ...]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Where each tensor begins, and its shape."""
    places, start = {}, _HEADER.size
    for name, each, shape in _shapes(sizes):
        for layer in range(sizes[2] if each else 1):
            if name:
                prefix = f"blk.{layer}." if each else ""
                places[f"{prefix}{name}.weight"] = (start, shape)
            start += 4 * math.prod(shape)
    return places


def _settings(sizes: tuple[int, ...]) -> dict[str, Any]:
    width, inner, layers, heads, shared, _, context = sizes
    values = {
        "embedding_length": width,
        "feed_forward_length": inner,
        "block_count": layers,
        "attention.head_count": heads,
        "attention.head_count_kv": shared,
        "context_length": context,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    named = {f"llama.{name}": value for name, value in values.items()}
    return {"general.architecture": "llama"} | named


def _tokenizer(path: Path, vocabulary: int) -> dict[str, Any]:
    """The vocabulary beside the weights; without one the model has no tokenizer."""
    names = (f"tok{vocabulary}.bin", "tokenizer.bin")
    found = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if not found:
        return {}
    scores, tokens = _pieces(found[0], vocabulary)
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    special = [_UNKNOWN, _CONTROL, _CONTROL]
    kinds = [_BYTE if token.startswith("<0x") else _NORMAL for token in tokens[3:]]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": special + kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def _pieces(path: Path, vocabulary: int) -> tuple[list[float], list[str]]:
    """Scores and pieces; spaces are what SentencePiece writes as a low line."""
    data, offset = path.read_bytes(), 4
    scores: list[float] = []
    tokens: list[str] = []
    for _ in range(vocabulary):
        if offset + 8 > len(data):
            raise CorruptFileError(path, f"it ends after {len(tokens)} of {vocabulary} tokens")
        score, length = struct.unpack_from("<fi", data, offset)
        piece = data[offset + 8 : offset + 8 + max(length, 0)]
        if length < 0 or len(piece) < length:
            raise CorruptFileError(path, f"token {len(tokens)} claims {length} bytes")
        scores.append(score)
        tokens.append(piece.decode("utf-8", "replace").replace(" ", "\u2581"))
        offset += 8 + length
    return scores, tokens
