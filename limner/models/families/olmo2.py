"""OLMo 2 (Walsh et al. 2024): branches normalised on the way out only, queries and keys whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import attention_of, change_blocks
from limner.models.translation import Translation

NORMS = {
    "model.layers.{}.post_attention_layernorm.weight": "blocks.{}.mix.inside.weight",
    "model.layers.{}.post_feedforward_layernorm.weight": "blocks.{}.feed.inside.weight",
}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    config = llama.read_config({"rms_norm_eps": 1e-5} | dict(fields))
    residual = ResidualConfig(inside=config.norm)

    return replace(
        change_blocks(
            config,
            lambda block: replace(
                block,
                mixer=replace(attention_of(block), head_norm=config.norm, norm_together=True),
                mix=residual,
                feed=residual,
            ),
        ),
        family="olmo2",
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    return llama.write_config(config) | {
        "architectures": ["Olmo2ForCausalLM"],
        "model_type": "olmo2",
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    return llama.translations_with(config, NORMS)
