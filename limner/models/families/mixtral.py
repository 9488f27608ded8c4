"""Mixtral (Jiang et al. 2024): Mistral with eight experts, two for each token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import llama, mistral
from limner.models.families.experts import experts_in_layer, without_experts
from limner.models.families.fields import attention_of
from limner.models.translation import Translation, renamed, renamed_in_layer
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.mixture import MixtureConfig, RouterConfig

write_gguf, gguf_translations = llama.write_gguf, llama.gguf_translations

MIXTURE = "model.layers.{}.block_sparse_moe"
ROUTER = {f"{MIXTURE}.gate.weight": "blocks.{}.feedforward.router.score.weight"}
EXPERTS = {"w1": "gate", "w3": "up", "w2": "down"}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    defaults = {"sliding_window": None, "rope_theta": 1e6, "rms_norm_eps": 1e-5}
    config = mistral.read_config(defaults | dict(fields))
    dense = config.blocks[0].feedforward
    assert isinstance(dense, FeedForwardConfig)
    experts = fields.get("num_local_experts", 8)
    router = RouterConfig(experts, fields.get("num_experts_per_tok", 2))
    mixture = MixtureConfig(router, dense.width, dense.activation)
    blocks = tuple(replace(block, feedforward=mixture) for block in config.blocks)
    return replace(config, family="mixtral", blocks=blocks)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    mixture = config.blocks[0].feedforward
    assert isinstance(mixture, MixtureConfig)
    return mistral.write_config(without_experts(config)) | {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": mixture.router.experts,
        "num_experts_per_tok": mixture.router.chosen,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    yield from renamed(llama.STEM | ({} if config.head.tied else llama.HEAD), 1)
    for layer, block in enumerate(config.blocks):
        names = llama.NORMS | llama.attention_names(attention_of(block)) | ROUTER
        yield from renamed_in_layer(names, layer)
        assert isinstance(block.feedforward, MixtureConfig)
        yield from experts_in_layer(MIXTURE, EXPERTS, layer, block.feedforward)
