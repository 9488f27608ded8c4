"""Qwen 3 (Yang et al. 2025): Llama with every head normalised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import change_mixers
from limner.models.families.gguf_fields import GGUFFields, read_llama_fields
from limner.models.families.gguf_header import GGUFHeader, header_of, within_window
from limner.models.families.gguf_tensors import tensors_of
from limner.models.families.qwen2 import read_windows, write_windows
from limner.nn.attention import AttentionConfig

translations = llama.translations
gguf_translations = tensors_of


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    windows = read_windows(fields)
    config = replace(llama.read_config({"head_dim": 128} | dict(fields)), family="qwen3")

    def change(mixer: AttentionConfig, layer: int) -> AttentionConfig:
        return replace(mixer, window=windows[layer], head_norm=config.norm)

    return change_mixers(config, change)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    return llama.write_config(config) | {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **write_windows(config),
    }


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    return read_config(read_llama_fields(file))


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file."""
    return header_of(within_window(config), "qwen3", ["silu"])
