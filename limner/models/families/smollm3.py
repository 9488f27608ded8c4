"""SmolLM3 (Hugging Face 2025): Llama, every fourth layer of which knows no positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import (
    attention_of,
    change_mixers,
    read_layer_types,
    write_layer_types,
    write_rotary,
    write_window,
)
from limner.nn.attention import AttentionConfig

translations = llama.translations


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    every = fields.get("no_rope_layer_interval", 4)
    listed = fields.get("no_rope_layers")
    layers = range(fields["num_hidden_layers"])
    turned = listed if listed is not None else [(layer + 1) % every != 0 for layer in layers]
    window = fields.get("sliding_window") if fields.get("use_sliding_window") else None
    sliding = read_layer_types(fields, lambda layer: window is not None and not turned[layer])
    defaults = {"rope_theta": 2e6, "tie_word_embeddings": True}

    def change(mixer: AttentionConfig, layer: int) -> AttentionConfig:
        rotary = mixer.rotary if turned[layer] else None
        return replace(mixer, rotary=rotary, window=window if sliding[layer] else None)

    config = replace(llama.read_config(defaults | dict(fields)), family="smollm3")
    return change_mixers(config, change)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    mixers = [attention_of(block) for block in config.blocks]
    turning = next((mixer.rotary for mixer in mixers if mixer.rotary is not None), None)
    return llama.write_config(config) | {
        "architectures": ["SmolLM3ForCausalLM"],
        "model_type": "smollm3",
        "no_rope_layers": [int(mixer.rotary is not None) for mixer in mixers],
        "use_sliding_window": write_window(config) is not None,
        "sliding_window": write_window(config),
        "layer_types": write_layer_types(config),
        "pad_token_id": None,
        **write_rotary(turning, mixers[0].head_width),
    }
