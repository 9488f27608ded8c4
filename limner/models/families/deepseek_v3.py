"""DeepSeek-V3 and R1 (2024): V2 with sigmoid routing, balanced by a bias, and predictors ahead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import deepseek_v2
from limner.models.translation import Translation, renamed
from limner.nn.latent_attention import LatentAttentionConfig
from limner.nn.mixture import RouterConfig

#: What a predictor has besides a layer; it stands where the next layer would.
PREDICTOR = {
    "enorm.weight": "token_norm.weight",
    "hnorm.weight": "hidden_norm.weight",
    "eh_proj.weight": "join.weight",
    "shared_head.norm.weight": "norm.weight",
}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    fields = {"first_k_dense_replace": 3, "max_position_embeddings": 4096} | dict(fields)
    router = RouterConfig(
        fields["n_routed_experts"],
        fields["num_experts_per_tok"],
        score="sigmoid",
        normalise=fields.get("norm_topk_prob", True),
        scale=fields.get("routed_scaling_factor", 2.5),
        groups=fields.get("n_group", 8),
        chosen_groups=fields.get("topk_group", 4),
        group_best=2,
        balanced=True,
    )
    config = deepseek_v2.read_latent(fields, router, fields.get("rope_interleave", True))
    ahead = (config.blocks[-1],) * fields.get("num_nextn_predict_layers", 0)
    return replace(config, family="deepseek_v3", predictors=ahead)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    attention = config.blocks[0].mixer
    assert isinstance(attention, LatentAttentionConfig)
    return deepseek_v2.write_latent(config) | {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "rope_interleave": attention.rotary.interleaved,
        "num_nextn_predict_layers": len(config.predictors),
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    yield from deepseek_v2.translations(config)
    layers = len(config.blocks)
    for depth, block in enumerate(config.predictors):
        theirs, ours = f"model.layers.{layers + depth}", f"predictors.{depth}"
        names = {f"{theirs}.{name}": f"{ours}.{our}" for name, our in PREDICTOR.items()}
        for rule in renamed(names, 1):
            yield replace(rule, optional=True)
        for rule in deepseek_v2.layer_translations(block, layers + depth):
            inside = tuple(
                name.replace(f"blocks.{layers + depth}", f"{ours}.block") for name in rule.ours
            )
            yield replace(rule, ours=inside, optional=True)
