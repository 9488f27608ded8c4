"""Falcon (Almazrouei et al. 2023): both branches in parallel, few keys for many queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import (
    attention_of,
    read_activation,
    read_rotary,
    write_activation,
    write_rotary,
)
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed, renamed_in_layer, split_heads
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

STEM = {
    "transformer.word_embeddings.weight": "embedding.tokens.weight",
    "transformer.ln_f.weight": "norm.weight",
    "transformer.ln_f.bias": "norm.bias",
}
HEAD = {"lm_head.weight": "head.output.weight"}
LINEAR = {
    "self_attention.dense": "mixer.output",
    "mlp.dense_h_to_4h": "feedforward.up",
    "mlp.dense_4h_to_h": "feedforward.down",
}
PREFIX = "transformer."


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json; ValueError for the first ones, with ALiBi."""
    if fields.get("alibi"):
        raise ValueError("alibi is true: only Falcons with rotary positions are known")
    norm = NormConfig("layer", fields.get("layer_norm_epsilon", 1e-5))
    return DecoderConfig(
        family="falcon",
        width=fields["hidden_size"],
        context=fields.get("max_position_embeddings", 2048),
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=(_block(fields, norm),) * fields["num_hidden_layers"],
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", True)),
    )


def _block(fields: Mapping[str, Any], norm: NormConfig) -> BlockConfig:
    heads, bias = fields["num_attention_heads"], fields.get("bias", False)
    head_width = fields["hidden_size"] // heads
    newer = fields.get("new_decoder_architecture", False)
    parallel = newer or fields.get("parallel_attn", True)
    norms = fields.get("num_ln_in_parallel_attn") or (2 if newer else 1)
    return BlockConfig(
        mixer=AttentionConfig(
            heads=heads,
            key_value_heads=_key_value_heads(fields),
            head_width=head_width,
            rotary=read_rotary(fields, head_width),
            query_bias=bias,
            key_bias=bias,
            value_bias=bias,
            output_bias=bias,
        ),
        mix=ResidualConfig(before=norm),
        feedforward=FeedForwardConfig(
            fields.get("ffn_hidden_size") or 4 * fields["hidden_size"],
            read_activation(fields.get("activation", "gelu")),
            gated=False,
            bias=bias,
        ),
        feed=ResidualConfig(before=None if parallel and norms == 1 else norm),
        parallel=parallel,
    )


def _key_value_heads(fields: Mapping[str, Any]) -> int:
    heads: int = fields["num_attention_heads"]
    if fields.get("new_decoder_architecture"):
        return fields.get("num_kv_heads") or heads
    return 1 if fields.get("multi_query", True) else heads


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block = config.blocks[0]
    attention, feedforward = attention_of(block), block.feedforward
    assert isinstance(feedforward, FeedForwardConfig)
    assert config.norm is not None
    two_norms = block.parallel and block.feed.before is not None
    newer = two_norms or attention.key_value_heads not in (1, attention.heads)
    return {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "hidden_size": config.width,
        "ffn_hidden_size": feedforward.width,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": attention.heads,
        "num_kv_heads": attention.key_value_heads,
        "new_decoder_architecture": newer,
        "num_ln_in_parallel_attn": 2 if two_norms else 1,
        "multi_query": attention.key_value_heads == 1,
        "parallel_attn": block.parallel,
        "activation": write_activation(feedforward.activation),
        "bias": attention.query_bias,
        "alibi": False,
        "layer_norm_epsilon": config.norm.epsilon,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.head.tied,
        **write_rotary(attention.rotary, attention.head_width),
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    attention = attention_of(config.blocks[0])
    kinds = ("weight", "bias") if attention.query_bias else ("weight",)
    yield from renamed(STEM | ({} if config.head.tied else HEAD), 1)
    names = _norm_names(config.blocks[0])
    names |= {f"{one}.{kind}": f"{two}.{kind}" for one, two in LINEAR.items() for kind in kinds}
    names = {f"transformer.h.{{}}.{one}": f"blocks.{{}}.{two}" for one, two in names.items()}
    share = attention.heads // attention.key_value_heads
    for layer in range(len(config.blocks)):
        yield from renamed_in_layer(names, layer)
        for kind in kinds:
            yield split_heads(
                f"transformer.h.{layer}.self_attention.query_key_value.{kind}",
                [f"blocks.{layer}.mixer.{part}.{kind}" for part in ("query", "key", "value")],
                attention.key_value_heads,
                [share * attention.head_width, attention.head_width, attention.head_width],
            )


def _norm_names(block: BlockConfig) -> dict[str, str]:
    """One norm for both branches, or two, which newer ones name after what they lead to."""
    first, second = "input_layernorm", "post_attention_layernorm"
    if block.parallel and block.feed.before:
        first, second = "ln_attn", "ln_mlp"
    places = {first: "mix.before"} | ({second: "feed.before"} if block.feed.before else {})
    return {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in places.items()
        for kind in ("weight", "bias")
    }
