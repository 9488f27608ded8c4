"""DeepSeek-V2 (2024): latent attention, and fine experts beside shared ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.experts import experts_in_layer
from limner.models.families.fields import (
    read_activation,
    read_rotary,
    write_activation,
    write_rotary,
)
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed, renamed_in_layer, split_heads
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.latent_attention import LatentAttentionConfig
from limner.nn.mixture import MixtureConfig, RouterConfig
from limner.nn.norms import NormConfig

PLACE = "model.layers.{}.self_attn"
ATTENTION = {
    f"{PLACE}.kv_a_proj_with_mqa.weight": "blocks.{}.mixer.down.weight",
    f"{PLACE}.kv_a_layernorm.weight": "blocks.{}.mixer.norm.weight",
    f"{PLACE}.o_proj.weight": "blocks.{}.mixer.output.weight",
}
ATTENTION_BIAS = {
    f"{PLACE}.kv_a_proj_with_mqa.bias": "blocks.{}.mixer.down.bias",
    f"{PLACE}.o_proj.bias": "blocks.{}.mixer.output.bias",
}
QUERY = {f"{PLACE}.q_proj.weight": "blocks.{}.mixer.query.weight"}
NARROW_QUERY = {
    f"{PLACE}.q_a_proj.weight": "blocks.{}.mixer.query_down.weight",
    f"{PLACE}.q_a_layernorm.weight": "blocks.{}.mixer.query_norm.weight",
    f"{PLACE}.q_b_proj.weight": "blocks.{}.mixer.query.weight",
}
NARROW_QUERY_BIAS = {f"{PLACE}.q_a_proj.bias": "blocks.{}.mixer.query_down.bias"}

MIXTURE = "model.layers.{}.mlp"
ROUTER = {f"{MIXTURE}.gate.weight": "blocks.{}.feedforward.router.score.weight"}
BIAS = {f"{MIXTURE}.gate.e_score_correction_bias": "blocks.{}.feedforward.router.bias"}
EXPERTS = {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    grouped = fields.get("topk_method", "greedy") == "group_limited_greedy"
    normalise = bool(fields.get("norm_topk_prob", False))
    router = RouterConfig(
        fields["n_routed_experts"],
        fields["num_experts_per_tok"],
        normalise=normalise,
        scale=1.0 if normalise else fields.get("routed_scaling_factor", 1.0),
        groups=fields["n_group"] if grouped else 1,
        chosen_groups=fields["topk_group"] if grouped else 1,
    )
    return replace(read_latent(fields, router), family="deepseek_v2")


def read_latent(
    fields: Mapping[str, Any], router: RouterConfig, interleaved: bool = True
) -> DecoderConfig:
    """A decoder of latent attention, the first layers dense and the others with experts."""
    norm = NormConfig("rms", fields.get("rms_norm_eps", 1e-6))
    dense = FeedForwardConfig(
        fields["intermediate_size"],
        read_activation(fields.get("hidden_act", "silu")),
        bias=fields.get("mlp_bias", False),
    )
    width, count = fields["moe_intermediate_size"], fields.get("n_shared_experts") or 0
    shared = replace(dense, width=width * count) if count else None
    mixture = MixtureConfig(router, width, dense.activation, shared)
    first = fields.get("first_k_dense_replace", 0)
    block = BlockConfig(
        mixer=read_attention(fields, interleaved),
        mix=ResidualConfig(before=norm),
        feedforward=mixture,
        feed=ResidualConfig(before=norm),
    )
    layers = fields["num_hidden_layers"]
    return DecoderConfig(
        family="",
        width=fields["hidden_size"],
        context=fields.get("max_position_embeddings", 2048),
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=tuple(
            replace(block, feedforward=dense) if layer < first else block for layer in range(layers)
        ),
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", False)),
    )


def read_attention(fields: Mapping[str, Any], interleaved: bool) -> LatentAttentionConfig:
    """Latent attention; its own norms have an epsilon of 1e-6 whatever the others have."""
    scaling = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    return LatentAttentionConfig(
        heads=fields["num_attention_heads"],
        latent=fields["kv_lora_rank"],
        plain_width=fields["qk_nope_head_dim"],
        value_width=fields["v_head_dim"],
        rotary=read_rotary(fields, fields["qk_rope_head_dim"], interleaved),
        norm=NormConfig("rms", 1e-6),
        query_latent=fields.get("q_lora_rank"),
        sharpness=scaling.get("mscale_all_dim") or 0.0,
        bias=fields.get("attention_bias", False),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    router = mixture_of(config).router
    return write_latent(config) | {
        "architectures": ["DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v2",
        "mlp_bias": _dense_of(config).bias,
        "topk_method": "group_limited_greedy" if router.groups > 1 else "greedy",
    }


def write_latent(config: DecoderConfig) -> dict[str, Any]:
    """The fields that DeepSeek-V2 and V3 have in common."""
    norm, mixture, dense = config.norm, mixture_of(config), _dense_of(config)
    assert norm is not None
    sparse = [isinstance(block.feedforward, MixtureConfig) for block in config.blocks]
    return {
        "hidden_size": config.width,
        "intermediate_size": dense.width,
        "num_hidden_layers": len(config.blocks),
        "hidden_act": write_activation(mixture.activation),
        "rms_norm_eps": norm.epsilon,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.head.tied,
        "first_k_dense_replace": sparse.index(True),
        "moe_intermediate_size": mixture.width,
        "n_shared_experts": mixture.shared.width // mixture.width if mixture.shared else None,
        "n_routed_experts": mixture.router.experts,
        "num_experts_per_tok": mixture.router.chosen,
        "norm_topk_prob": mixture.router.normalise,
        "routed_scaling_factor": mixture.router.scale,
        "n_group": mixture.router.groups,
        "topk_group": mixture.router.chosen_groups,
        **_write_attention(config),
    }


def _write_attention(config: DecoderConfig) -> dict[str, Any]:
    attention = config.blocks[0].mixer
    assert isinstance(attention, LatentAttentionConfig)
    fields = {
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.heads,
        "attention_bias": attention.bias,
        "kv_lora_rank": attention.latent,
        "q_lora_rank": attention.query_latent,
        "qk_nope_head_dim": attention.plain_width,
        "qk_rope_head_dim": attention.rotary.width,
        "v_head_dim": attention.value_width,
        **write_rotary(attention.rotary, attention.rotary.width),
    }
    if attention.sharpness:
        fields["rope_scaling"]["mscale_all_dim"] = attention.sharpness
    return fields


def mixture_of(config: DecoderConfig) -> MixtureConfig:
    """The experts of the layers that have some."""
    feeds = [block.feedforward for block in config.blocks]
    return next(feed for feed in feeds if isinstance(feed, MixtureConfig))


def _dense_of(config: DecoderConfig) -> FeedForwardConfig:
    """The feed-forward of the first layers; the shared experts' if all layers have experts."""
    feed = config.blocks[0].feedforward
    if isinstance(feed, FeedForwardConfig):
        return feed
    mixture = mixture_of(config)
    return mixture.shared or FeedForwardConfig(mixture.width, mixture.activation)


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    yield from renamed(llama.STEM | ({} if config.head.tied else llama.HEAD), 1)
    for layer, block in enumerate(config.blocks):
        yield from layer_translations(block, layer)


def layer_translations(block: BlockConfig, layer: int) -> Iterator[Translation]:
    """The tensors of one layer."""
    attention, feed = block.mixer, block.feedforward
    assert isinstance(attention, LatentAttentionConfig)
    yield from renamed_in_layer(llama.NORMS | _attention_names(attention), layer)
    yield split_heads(
        f"model.layers.{layer}.self_attn.kv_b_proj.weight",
        [f"blocks.{layer}.mixer.key.weight", f"blocks.{layer}.mixer.value.weight"],
        attention.heads,
        [attention.plain_width, attention.value_width],
    )
    if isinstance(feed, MixtureConfig):
        yield from _mixture_translations(feed, layer)
    else:
        assert isinstance(feed, FeedForwardConfig)
        yield from renamed_in_layer(llama.feedforward_names(feed), layer)


def _attention_names(config: LatentAttentionConfig) -> dict[str, str]:
    names = ATTENTION | (NARROW_QUERY if config.query_latent else QUERY)
    if config.bias:
        names |= ATTENTION_BIAS | (NARROW_QUERY_BIAS if config.query_latent else {})
    return names


def _mixture_translations(config: MixtureConfig, layer: int) -> Iterator[Translation]:
    names = ROUTER | (BIAS if config.router.balanced else {})
    if config.shared:
        names |= {
            theirs.replace(".mlp.", ".mlp.shared_experts."): ours.replace(
                ".feedforward.", ".feedforward.shared."
            )
            for theirs, ours in llama.feedforward_names(config.shared).items()
        }
    yield from renamed_in_layer(names, layer)
    yield from experts_in_layer(MIXTURE, EXPERTS, layer, config)
