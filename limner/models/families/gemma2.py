"""Gemma 2 (Riviere et al. 2024): every other layer slides, scores and logits are capped.

Branches are normalised on the way in and on the way out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families import gemma, llama
from limner.models.families.fields import (
    attention_of,
    read_layer_types,
    write_layer_types,
    write_window,
)
from limner.models.families.gguf_fields import GGUFFields, read_llama_fields
from limner.models.families.gguf_header import GGUFHeader, header_of
from limner.models.families.gguf_tensors import tensors_of
from limner.models.translation import Translation

gguf_translations = tensors_of

NORMS = {
    "model.layers.{}.input_layernorm.weight": "blocks.{}.mix.before.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blocks.{}.mix.inside.weight",
    "model.layers.{}.pre_feedforward_layernorm.weight": "blocks.{}.feed.before.weight",
    "model.layers.{}.post_feedforward_layernorm.weight": "blocks.{}.feed.inside.weight",
}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    fields = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0} | dict(fields)
    sliding = read_layer_types(fields, lambda layer: layer % 2 == 0)
    config = replace(read_sandwich(fields), family="gemma2")
    window = fields.get("sliding_window", 4096)
    blocks = [
        replace(block, mixer=replace(attention_of(block), window=window)) if slides else block
        for block, slides in zip(config.blocks, sliding, strict=True)
    ]
    return replace(config, blocks=tuple(blocks))


def read_sandwich(fields: Mapping[str, Any]) -> DecoderConfig:
    """Gemma with two norms a branch, capped scores and logits, and a scale of its own."""
    config = gemma.read_config(fields)
    residual = ResidualConfig(before=config.norm, inside=config.norm)
    scale = fields.get("query_pre_attn_scalar", 256) ** -0.5
    softcap = fields.get("attn_logit_softcapping")

    def changed(block: BlockConfig) -> BlockConfig:
        mixer = replace(attention_of(block), scale=scale, softcap=softcap)
        return replace(block, mixer=mixer, mix=residual, feed=residual)

    head = replace(config.head, softcap=fields.get("final_logit_softcapping"))
    return replace(config, blocks=tuple(changed(block) for block in config.blocks), head=head)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    return write_sandwich(config) | {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
    }


def write_sandwich(config: DecoderConfig) -> dict[str, Any]:
    """The fields that Gemma 2 and 3 have in common."""
    attention = attention_of(config.blocks[0])
    assert attention.scale is not None
    scalar = attention.scale**-2
    return gemma.write_config(config) | {
        "query_pre_attn_scalar": round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar,
        "attn_logit_softcapping": attention.softcap,
        "final_logit_softcapping": config.head.softcap,
        "sliding_window": write_window(config),
        "layer_types": write_layer_types(config),
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    return llama.translations_with(config, NORMS)


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    fields = read_llama_fields(file)
    return read_config(
        fields
        | {
            "query_pre_attn_scalar": read_scalar(fields, large=46),
            "attn_logit_softcapping": file.value("attn_logit_softcapping", 50.0),
            "final_logit_softcapping": file.value("final_logit_softcapping", 30.0),
            "sliding_window": file.value("attention.sliding_window", 4096),
        }
    )


def read_scalar(fields: Mapping[str, Any], large: int) -> int:
    """What queries are divided by the root of, which GGUF files leave to llama.cpp to know.

    It is the head width, but for the model of `large` layers (27B) the width of a head's share.
    """
    share: int = fields["hidden_size"] // fields["num_attention_heads"]
    head_width: int = fields["head_dim"]
    return share if fields["num_hidden_layers"] == large else head_width


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file; ValueError if llama.cpp would scale or slide otherwise."""
    gemma.refuse_untied(config)
    refuse_other_scale(config, large=46)
    sliding = [attention_of(block).window is not None for block in config.blocks]
    return header_of(config, "gemma2", ["gelu_tanh"], attention__sliding_window_pattern=sliding)


def refuse_other_scale(config: DecoderConfig, large: int) -> None:
    """ValueError unless queries are scaled as llama.cpp will scale them."""
    attention = attention_of(config.blocks[0])
    fields = {
        "hidden_size": config.width,
        "num_attention_heads": attention.heads,
        "num_hidden_layers": len(config.blocks),
        "head_dim": attention.head_width,
    }
    expected = read_scalar(fields, large)
    if attention.scale is not None and abs(attention.scale**-2 - expected) > 1e-3:
        raise ValueError(
            f"query_pre_attn_scalar is {attention.scale**-2:g} but llama.cpp will take {expected}: "
            "this model has no GGUF form"
        )
