"""Llama 1 to 3 (Touvron et al. 2023; Dubey et al. 2024), and its like such as SmolLM2."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import (
    read_activation,
    read_rotary,
    write_activation,
    write_rotary,
)
from limner.models.families.gguf_fields import GGUFFields, read_gguf_rotary
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, interleaved_rows, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

NAMES = {
    "model.embed_tokens.weight": "embedding.tokens.weight",
    "model.layers.{}.input_layernorm.weight": "blocks.{}.mix.before.weight",
    "model.layers.{}.self_attn.q_proj.weight": "blocks.{}.mixer.query.weight",
    "model.layers.{}.self_attn.k_proj.weight": "blocks.{}.mixer.key.weight",
    "model.layers.{}.self_attn.v_proj.weight": "blocks.{}.mixer.value.weight",
    "model.layers.{}.self_attn.o_proj.weight": "blocks.{}.mixer.output.weight",
    "model.layers.{}.post_attention_layernorm.weight": "blocks.{}.feed.before.weight",
    "model.layers.{}.mlp.gate_proj.weight": "blocks.{}.feedforward.gate.weight",
    "model.layers.{}.mlp.up_proj.weight": "blocks.{}.feedforward.up.weight",
    "model.layers.{}.mlp.down_proj.weight": "blocks.{}.feedforward.down.weight",
    "model.norm.weight": "norm.weight",
}
ATTENTION_BIAS = {
    "model.layers.{}.self_attn.q_proj.bias": "blocks.{}.mixer.query.bias",
    "model.layers.{}.self_attn.k_proj.bias": "blocks.{}.mixer.key.bias",
    "model.layers.{}.self_attn.v_proj.bias": "blocks.{}.mixer.value.bias",
    "model.layers.{}.self_attn.o_proj.bias": "blocks.{}.mixer.output.bias",
}
FEEDFORWARD_BIAS = {
    "model.layers.{}.mlp.gate_proj.bias": "blocks.{}.feedforward.gate.bias",
    "model.layers.{}.mlp.up_proj.bias": "blocks.{}.feedforward.up.bias",
    "model.layers.{}.mlp.down_proj.bias": "blocks.{}.feedforward.down.bias",
}
HEAD = {"lm_head.weight": "head.output.weight"}


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
    attention, feedforward = config.blocks[0].mixer, config.blocks[0].feedforward
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    names = dict(NAMES)
    names |= ATTENTION_BIAS if attention.query_bias else {}
    names |= FEEDFORWARD_BIAS if feedforward.bias else {}
    names |= {} if config.head.tied else HEAD
    return renamed(names, len(config.blocks))


GGUF_NAMES = {
    "token_embd.weight": "embedding.tokens.weight",
    "blk.{}.attn_norm.weight": "blocks.{}.mix.before.weight",
    "blk.{}.attn_v.weight": "blocks.{}.mixer.value.weight",
    "blk.{}.attn_output.weight": "blocks.{}.mixer.output.weight",
    "blk.{}.ffn_norm.weight": "blocks.{}.feed.before.weight",
    "blk.{}.ffn_gate.weight": "blocks.{}.feedforward.gate.weight",
    "blk.{}.ffn_up.weight": "blocks.{}.feedforward.up.weight",
    "blk.{}.ffn_down.weight": "blocks.{}.feedforward.down.weight",
    "output_norm.weight": "norm.weight",
}
GGUF_HEAD = {"output.weight": "head.output.weight"}


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    heads = file.value("attention.head_count")
    width = file.value("embedding_length")
    head_width = file.value("attention.key_length", width // heads)
    fields = {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": file.value("attention.head_count_kv", heads),
        "head_dim": head_width,
        "rms_norm_eps": file.value("attention.layer_norm_rms_epsilon"),
        "intermediate_size": file.value("feed_forward_length"),
        "vocab_size": file.rows("token_embd.weight"),
        "num_hidden_layers": file.value("block_count"),
        "max_position_embeddings": file.value("context_length"),
        "tie_word_embeddings": not file.has("output.weight"),
        **read_gguf_rotary(file, head_width),
    }
    return read_config(fields)


def gguf_translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes."""
    attention = config.blocks[0].mixer
    assert isinstance(attention, AttentionConfig)
    names = GGUF_NAMES | ({} if config.head.tied else GGUF_HEAD)
    yield from renamed(names, len(config.blocks))
    for layer in range(len(config.blocks)):
        for theirs, ours, heads in (
            ("attn_q", "query", attention.heads),
            ("attn_k", "key", attention.key_value_heads),
        ):
            yield interleaved_rows(
                f"blk.{layer}.{theirs}.weight", f"blocks.{layer}.mixer.{ours}.weight", heads
            )
