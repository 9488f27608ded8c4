"""Qwen 2 and 2.5 (Yang et al. 2024): Llama with biases on what makes heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import (
    change_mixers,
    read_layer_types,
    write_layer_types,
    write_window,
)
from limner.models.families.gguf_fields import GGUFFields, read_llama_fields
from limner.models.families.gguf_header import GGUFHeader, header_of, within_window
from limner.models.families.gguf_tensors import tensors_of
from limner.nn.attention import AttentionConfig

translations = llama.translations
gguf_translations = tensors_of


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    windows = read_windows(fields)

    def change(mixer: AttentionConfig, layer: int) -> AttentionConfig:
        return replace(
            mixer,
            window=windows[layer],
            query_bias=True,
            key_bias=True,
            value_bias=True,
            output_bias=False,
        )

    return change_mixers(replace(llama.read_config(fields), family="qwen2"), change)


def read_windows(fields: Mapping[str, Any]) -> list[int | None]:
    """The window of each layer: the first `max_window_layers` see everything."""
    window = fields.get("sliding_window") if fields.get("use_sliding_window") else None
    first = fields.get("max_window_layers", 28)
    sliding = read_layer_types(fields, lambda layer: window is not None and layer >= first)
    return [window if slides else None for slides in sliding]


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    return llama.write_config(config) | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        **write_windows(config),
    }


def write_windows(config: DecoderConfig) -> dict[str, Any]:
    """The fields that say which layers slide."""
    types, window = write_layer_types(config), write_window(config)
    return {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": len(types) if window is None else types.index("sliding_attention"),
        "layer_types": types,
    }


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    return read_config(read_llama_fields(file))


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file."""
    return header_of(within_window(config), "qwen2", ["silu"])
