"""The text model of Gemma 3 (Kamath et al. 2025): five sliding layers to one that sees all.

The two kinds turn by different bases, and every head is normalised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import gemma2
from limner.models.families.fields import (
    attention_of,
    change_mixers,
    read_layer_types,
    read_rotary,
    write_scaling,
)
from limner.models.families.gguf_fields import GGUFFields, read_llama_fields
from limner.models.families.gguf_header import GGUFHeader, header_of
from limner.models.families.gguf_tensors import tensors_of
from limner.nn.attention import AttentionConfig
from limner.nn.rotary import RotaryConfig

translations = gemma2.translations
gguf_translations = tensors_of


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    every = fields.get("sliding_window_pattern", fields.get("_sliding_window_pattern", 6))
    sliding = read_layer_types(fields, lambda layer: (layer + 1) % every != 0)
    fields = {"max_position_embeddings": 131_072} | dict(fields)
    head_width, window = fields.get("head_dim", 256), fields.get("sliding_window", 4096)
    near, far = read_bases(fields, head_width)
    plain = {name: value for name, value in fields.items() if name not in TURNING}
    config = replace(gemma2.read_sandwich(plain), family="gemma3_text")

    def change(mixer: AttentionConfig, layer: int) -> AttentionConfig:
        mixer = replace(mixer, head_norm=config.norm, rotary=near if sliding[layer] else far)
        return replace(mixer, window=window if sliding[layer] else None)

    return change_mixers(config, change)


#: Fields that say how to turn, which Gemma 3 writes otherwise than other families.
TURNING = ("rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq")


def read_bases(fields: Mapping[str, Any], head_width: int) -> tuple[RotaryConfig, RotaryConfig]:
    """How sliding layers turn, and how those that see everything do."""
    both = fields.get("rope_parameters") or {}
    near = {"rope_theta": fields.get("rope_local_base_freq", 1e4)}
    far = {"rope_theta": fields.get("rope_theta", 1e6)} | (fields.get("rope_scaling") or {})
    kinds = (
        near | (both.get("sliding_attention") or {}),
        far | (both.get("full_attention") or {}),
    )
    context = fields["max_position_embeddings"]
    first, second = (
        read_rotary({"rope_parameters": kind, "max_position_embeddings": context}, head_width)
        for kind in kinds
    )
    return first, second


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    mixers = [attention_of(block) for block in config.blocks]
    near = [mixer.rotary for mixer in mixers if mixer.window is not None]
    far = [mixer.rotary for mixer in mixers if mixer.window is None]
    fields = gemma2.write_sandwich(config) | {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "rope_parameters": {
            **({"sliding_attention": _turning(near[0])} if near else {}),
            **({"full_attention": _turning(far[0])} if far else {}),
        },
    }
    del fields["rope_theta"], fields["rope_scaling"]
    return fields


def _turning(rotary: RotaryConfig | None) -> dict[str, Any]:
    assert rotary is not None
    scaling = write_scaling(rotary.scaling) or {"rope_type": "default"}
    return {"rope_theta": rotary.theta, **scaling}


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    fields = {"rope_theta": 1e6} | read_llama_fields(file)
    window = file.value("attention.sliding_window", 0)
    return read_config(
        fields
        | {
            "query_pre_attn_scalar": gemma2.read_scalar(fields, large=62),
            "final_logit_softcapping": file.value("final_logit_softcapping", None),
            "rope_local_base_freq": file.value("rope.freq_base_swa", 1e4),
            "sliding_window": window,
            **_read_pattern(file.value("attention.sliding_window_pattern", 6 if window else 1)),
        }
    )


def _read_pattern(pattern: Any) -> dict[str, Any]:
    """Which layers slide: all but every n-th, or those listed."""
    if isinstance(pattern, int):
        return {"sliding_window_pattern": pattern}
    kinds = ("full_attention", "sliding_attention")
    return {"layer_types": [kinds[bool(slides)] for slides in pattern]}


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file; ValueError if llama.cpp would scale otherwise."""
    gemma2.refuse_other_scale(config, large=62)
    mixers = [attention_of(block) for block in config.blocks]
    near = [mixer.rotary for mixer in mixers if mixer.window is not None]
    far = [block for block in config.blocks if attention_of(block).window is None]
    # What a header says of turning is about the layers that see everything.
    said = replace(config, blocks=(*far, *config.blocks)[: len(mixers)])
    header = header_of(said, "gemma3", ["gelu_tanh"])
    if near and near[0] is not None:
        sliding = [mixer.window is not None for mixer in mixers]
        window = next(mixer.window for mixer in mixers if mixer.window is not None)
        header.metadata["gemma3.attention.sliding_window"] = window
        header.metadata["gemma3.attention.sliding_window_pattern"] = sliding
        header.metadata["gemma3.rope.freq_base_swa"] = near[0].theta
    return header
