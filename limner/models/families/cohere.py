"""Command R (Cohere 2024): both branches read one norm without a bias; logits are scaled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import attention_of, change_blocks
from limner.models.translation import Translation
from limner.nn.norms import NormConfig

NORMS = {"model.layers.{}.input_layernorm.weight": "blocks.{}.mix.before.weight"}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json; ValueError for heads normalised one by one."""
    if fields.get("use_qk_norm"):
        raise ValueError("use_qk_norm is true: Command R+ with its norm of each head is not known")
    norm = NormConfig("layer", fields.get("layer_norm_eps", 1e-5), bias=False)

    def changed(block: BlockConfig) -> BlockConfig:
        mixer = attention_of(block)
        assert mixer.rotary is not None
        return replace(
            block,
            mixer=replace(mixer, rotary=replace(mixer.rotary, interleaved=True)),
            mix=ResidualConfig(before=norm),
            feed=ResidualConfig(),
            parallel=True,
        )

    config = llama.read_config({"tie_word_embeddings": True} | dict(fields))
    head = replace(config.head, scale=fields.get("logit_scale", 0.0625))
    return replace(change_blocks(config, changed), family="cohere", norm=norm, head=head)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    assert config.norm is not None
    return llama.write_config(config) | {
        "architectures": ["CohereForCausalLM"],
        "model_type": "cohere",
        "layer_norm_eps": config.norm.epsilon,
        "logit_scale": config.head.scale,
        "pad_token_id": None,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    return llama.translations_with(config, NORMS)
