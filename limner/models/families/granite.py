"""Granite 3 (IBM 2024): Llama with a multiplier on every joint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import BlockConfig
from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import attention_of, change_blocks

translations = llama.translations


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    config = replace(llama.read_config(fields), family="granite")
    branch, scale = fields.get("residual_multiplier", 1.0), fields.get("attention_multiplier", 1.0)

    def changed(block: BlockConfig) -> BlockConfig:
        return replace(
            block,
            mixer=replace(attention_of(block), scale=float(scale)),
            mix=replace(block.mix, scale=float(branch)),
            feed=replace(block.feed, scale=float(branch)),
        )

    return replace(
        change_blocks(config, changed),
        embedding=replace(config.embedding, scale=float(fields.get("embedding_multiplier", 1.0))),
        head=replace(config.head, scale=1 / fields.get("logits_scaling", 1.0)),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block = config.blocks[0]
    return llama.write_config(config) | {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "embedding_multiplier": config.embedding.scale,
        "residual_multiplier": block.mix.scale,
        "attention_multiplier": attention_of(block).scale,
        "logits_scaling": 1 / config.head.scale,
    }
