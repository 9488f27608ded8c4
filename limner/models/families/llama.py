"""Llama 1 to 3 (Touvron et al. 2023; Dubey et al. 2024), and its like such as SmolLM2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import (
    read_activation,
    read_rotary,
    write_activation,
    write_rotary,
)
from limner.models.families.gguf_fields import GGUFFields, read_llama_fields
from limner.models.families.gguf_header import GGUFHeader, header_of, within_window
from limner.models.families.gguf_tensors import tensors_of
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import (
    Translation,
    renamed,
    renamed_in_layer,
)
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.mixture import MixtureConfig, RouterConfig
from limner.nn.norms import NormConfig

STEM = {
    "model.embed_tokens.weight": "embedding.tokens.weight",
    "model.norm.weight": "norm.weight",
}
HEAD = {"lm_head.weight": "head.output.weight"}
NORMS = {
    "model.layers.{}.input_layernorm.weight": "blocks.{}.mix.before.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blocks.{}.feed.before.weight",
}
ATTENTION = {
    "model.layers.{}.self_attn.q_proj.weight": "blocks.{}.mixer.query.weight",
    "model.layers.{}.self_attn.k_proj.weight": "blocks.{}.mixer.key.weight",
    "model.layers.{}.self_attn.v_proj.weight": "blocks.{}.mixer.value.weight",
    "model.layers.{}.self_attn.o_proj.weight": "blocks.{}.mixer.output.weight",
}
INPUT_BIAS = {
    "model.layers.{}.self_attn.q_proj.bias": "blocks.{}.mixer.query.bias",
    "model.layers.{}.self_attn.k_proj.bias": "blocks.{}.mixer.key.bias",
    "model.layers.{}.self_attn.v_proj.bias": "blocks.{}.mixer.value.bias",
}
OUTPUT_BIAS = {"model.layers.{}.self_attn.o_proj.bias": "blocks.{}.mixer.output.bias"}
HEAD_NORMS = {
    "model.layers.{}.self_attn.q_norm.weight": "blocks.{}.mixer.query_norm.weight",
    "model.layers.{}.self_attn.k_norm.weight": "blocks.{}.mixer.key_norm.weight",
}
FEEDFORWARD = {
    "model.layers.{}.mlp.gate_proj.weight": "blocks.{}.feedforward.gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "blocks.{}.feedforward.up.weight",
    "model.layers.{}.mlp.down_proj.weight": "blocks.{}.feedforward.down.weight",
}
FEEDFORWARD_BIAS = {
    "model.layers.{}.mlp.gate_proj.bias": "blocks.{}.feedforward.gate.bias",
    "model.layers.{}.mlp.up_proj.bias": "blocks.{}.feedforward.up.bias",
    "model.layers.{}.mlp.down_proj.bias": "blocks.{}.feedforward.down.bias",
}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    head_width = fields.get("head_dim") or width // heads
    bias = fields.get("attention_bias", False)
    norm = NormConfig("rms", fields.get("rms_norm_eps", 1e-6))
    block = BlockConfig(
        mixer=AttentionConfig(
            heads=heads,
            key_value_heads=fields.get("num_key_value_heads") or heads,
            head_width=head_width,
            rotary=read_rotary(fields, head_width),
            query_bias=bias,
            key_bias=bias,
            value_bias=bias,
            output_bias=bias,
        ),
        mix=ResidualConfig(before=norm),
        feedforward=FeedForwardConfig(
            fields["intermediate_size"],
            read_activation(fields.get("hidden_act", "silu")),
            bias=fields.get("mlp_bias", False),
        ),
        feed=ResidualConfig(before=norm),
    )
    return DecoderConfig(
        family="llama",
        width=width,
        context=fields.get("max_position_embeddings", 2048),
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=(block,) * fields["num_hidden_layers"],
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", False)),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block = config.blocks[0]
    attention, feedforward, norm = block.mixer, block.feedforward, config.norm
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert norm is not None
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": config.width,
        "intermediate_size": feedforward.width,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.key_value_heads,
        "head_dim": attention.head_width,
        "hidden_act": write_activation(feedforward.activation),
        "attention_bias": attention.query_bias,
        "mlp_bias": feedforward.bias,
        "rms_norm_eps": norm.epsilon,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.head.tied,
        **write_rotary(attention.rotary, attention.head_width),
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    return translations_with(config, NORMS)


def translations_with(
    config: DecoderConfig, norms: Mapping[str, str], stem: Mapping[str, str] = STEM
) -> Iterator[Translation]:
    """Llama's tensors, but with these `norms` in a layer and this `stem` besides the layers."""
    yield from renamed(dict(stem) | ({} if config.head.tied else HEAD), 1)
    for layer, block in enumerate(config.blocks):
        assert isinstance(block.mixer, AttentionConfig)
        assert isinstance(block.feedforward, FeedForwardConfig)
        names = attention_names(block.mixer) | feedforward_names(block.feedforward)
        yield from renamed_in_layer(dict(norms) | names, layer)


def attention_names(config: AttentionConfig) -> dict[str, str]:
    """The tensors of attention with these settings."""
    names = dict(ATTENTION)
    names |= INPUT_BIAS if config.query_bias else {}
    names |= OUTPUT_BIAS if config.output_bias else {}
    return names | (HEAD_NORMS if config.head_norm else {})


def feedforward_names(config: FeedForwardConfig) -> dict[str, str]:
    """The tensors of a feed-forward with these settings."""
    return FEEDFORWARD | (FEEDFORWARD_BIAS if config.bias else {})


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file; those of Mixtral say that they are Llama."""
    biases = {
        "attention_bias": file.has("blk.0.attn_q.bias"),
        "mlp_bias": file.has("blk.0.ffn_up.bias"),
    }
    config = read_config(read_llama_fields(file) | biases)
    experts = file.value("expert_count", 0)
    if not experts:
        return config
    dense = config.blocks[0].feedforward
    assert isinstance(dense, FeedForwardConfig)
    router = RouterConfig(experts, file.value("expert_used_count"))
    mixture = MixtureConfig(router, dense.width, dense.activation)
    blocks = tuple(replace(block, feedforward=mixture) for block in config.blocks)
    return replace(config, family="mixtral", blocks=blocks)


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file.

    llama.cpp does not slide in files of Llama's kind (Mistral), so the context ends with the
    window.
    """
    return header_of(within_window(config), "llama", ["silu"])


def gguf_translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes."""
    return tensors_of(config, permuted=True)
