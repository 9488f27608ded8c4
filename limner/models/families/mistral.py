"""Mistral (Jiang et al. 2023): Llama with a sliding window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import change_mixers, write_window

translations = llama.translations
write_gguf, gguf_translations = llama.write_gguf, llama.gguf_translations


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    window = fields.get("sliding_window", 4096)
    config = replace(llama.read_config(fields), family="mistral")
    return change_mixers(config, lambda mixer, _: replace(mixer, window=window))


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    return llama.write_config(config) | {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": write_window(config),
    }
