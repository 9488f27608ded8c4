"""Phi-3 and Phi-4-mini (Abdin et al. 2024): Llama with its matrices fused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import attention_of, change_mixers, write_window
from limner.models.families.gguf_fields import GGUFFields, read_llama_fields
from limner.models.families.gguf_header import GGUFHeader, header_of
from limner.models.families.gguf_tensors import tensors_of
from limner.models.translation import Translation, renamed, renamed_in_layer, split
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.rotary import LongRope

NAMES = llama.NORMS | {
    "model.layers.{}.self_attn.o_proj.weight": "blocks.{}.mixer.output.weight",
    "model.layers.{}.mlp.down_proj.weight": "blocks.{}.feedforward.down.weight",
}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    fields = {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096} | dict(fields)
    for name in ("rope_parameters", "rope_scaling"):
        scaling = fields.get(name) or {}
        if "short_factor" in scaling:
            # Files of the first weeks call LongRope "su" or "yarn".
            fields[name] = {**scaling, "rope_type": "longrope"}
    config = replace(llama.read_config(fields), family="phi3")
    window = fields.get("sliding_window")
    return change_mixers(config, lambda mixer, _: replace(mixer, window=window))


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    rotary = attention_of(config.blocks[0]).rotary
    assert rotary is not None
    scaling = rotary.scaling
    trained = scaling.context if isinstance(scaling, LongRope) else config.context
    return llama.write_config(config) | {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "sliding_window": write_window(config),
        "original_max_position_embeddings": trained,
        "pad_token_id": None,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    yield from renamed(llama.STEM | ({} if config.head.tied else llama.HEAD), 1)
    for layer, block in enumerate(config.blocks):
        attention, feedforward = attention_of(block), block.feedforward
        assert isinstance(feedforward, FeedForwardConfig)
        queries = attention.heads * attention.head_width
        keys = attention.key_value_heads * attention.head_width
        place, ours = f"model.layers.{layer}", f"blocks.{layer}"
        yield from renamed_in_layer(NAMES, layer)
        yield split(
            f"{place}.self_attn.qkv_proj.weight",
            [f"{ours}.mixer.{part}.weight" for part in ("query", "key", "value")],
            [queries, keys, keys],
        )
        yield split(
            f"{place}.mlp.gate_up_proj.weight",
            [f"{ours}.feedforward.{part}.weight" for part in ("gate", "up")],
            [feedforward.width] * 2,
        )


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    window = file.value("attention.sliding_window", 0) or None
    return read_config(read_llama_fields(file) | {"sliding_window": window})


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file."""
    trained = write_config(config)["original_max_position_embeddings"]
    window = write_window(config) or 0
    return header_of(
        config,
        "phi3",
        ["silu"],
        attention__sliding_window=window,
        rope__scaling__original_context_length=trained,
    )


def gguf_translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes."""
    return tensors_of(config, fused=True)
