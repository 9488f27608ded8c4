"""The mixtures of Qwen 3 (Yang et al. 2025): 128 narrow experts, eight for each token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import BlockConfig
from limner.models.decoder import DecoderConfig
from limner.models.families import llama, qwen3
from limner.models.families.experts import experts_in_layer, without_experts
from limner.models.families.fields import attention_of, read_activation
from limner.models.families.gguf_fields import GGUFFields, read_llama_fields
from limner.models.families.gguf_header import GGUFHeader, header_of, within_window
from limner.models.families.gguf_tensors import tensors_of
from limner.models.translation import Translation, renamed, renamed_in_layer
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.mixture import MixtureConfig, RouterConfig

gguf_translations = tensors_of

MIXTURE = "model.layers.{}.mlp"
ROUTER = {f"{MIXTURE}.gate.weight": "blocks.{}.feedforward.router.score.weight"}
EXPERTS = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    router = RouterConfig(
        fields.get("num_experts") or fields["num_local_experts"],
        fields["num_experts_per_tok"],
        normalise=fields.get("norm_topk_prob", False),
    )
    activation = read_activation(fields.get("hidden_act", "silu"))
    mixture = MixtureConfig(router, fields["moe_intermediate_size"], activation)
    config = qwen3.read_config({"max_window_layers": 0} | dict(fields))
    blocks = [
        replace(block, feedforward=mixture) if is_sparse(fields, layer) else block
        for layer, block in enumerate(config.blocks)
    ]
    return replace(config, family="qwen3_moe", blocks=tuple(blocks))


def is_sparse(fields: Mapping[str, Any], layer: int) -> bool:
    """Whether a layer has experts: not those listed, and of the rest every n-th."""
    listed = fields.get("mlp_only_layers") or []
    return layer not in listed and (layer + 1) % fields.get("decoder_sparse_step", 1) == 0


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    feeds = [block.feedforward for block in config.blocks]
    mixture = next(feed for feed in feeds if isinstance(feed, MixtureConfig))
    dense = [layer for layer, feed in enumerate(feeds) if isinstance(feed, FeedForwardConfig)]
    return qwen3.write_config(without_experts(config)) | {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": mixture.router.experts,
        "num_experts_per_tok": mixture.router.chosen,
        "norm_topk_prob": mixture.router.normalise,
        "moe_intermediate_size": mixture.width,
        "mlp_only_layers": dense,
        "decoder_sparse_step": 1,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    yield from renamed(llama.STEM | ({} if config.head.tied else llama.HEAD), 1)
    for layer, block in enumerate(config.blocks):
        yield from renamed_in_layer(llama.NORMS | llama.attention_names(attention_of(block)), layer)
        yield from feed_translations(block, layer)


def feed_translations(block: BlockConfig, layer: int) -> Iterator[Translation]:
    """The tensors of a layer's feed-forward, with experts or without."""
    feed = block.feedforward
    if isinstance(feed, MixtureConfig):
        yield from renamed_in_layer(ROUTER, layer)
        yield from experts_in_layer(MIXTURE, EXPERTS, layer, feed)
    else:
        assert isinstance(feed, FeedForwardConfig)
        yield from renamed_in_layer(llama.feedforward_names(feed), layer)


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file, whose gates llama.cpp always normalises."""
    experts = {
        "num_experts": file.value("expert_count"),
        "num_experts_per_tok": file.value("expert_used_count"),
        "moe_intermediate_size": file.value("expert_feed_forward_length"),
        "norm_topk_prob": True,
    }
    return read_config(read_llama_fields(file) | experts)


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file; ValueError if gates do not sum to 1."""
    feed = config.blocks[0].feedforward
    if isinstance(feed, MixtureConfig) and not feed.router.normalise:
        raise ValueError(
            "norm_topk_prob is false: llama.cpp would normalise the gates all the same, "
            "so this model has no GGUF form"
        )
    return header_of(within_window(config), "qwen3moe", ["silu"])
