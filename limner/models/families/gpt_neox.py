"""GPT-NeoX (Black et al. 2022) and Pythia: both branches read the block's input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import (
    attention_of,
    read_activation,
    read_rotary,
    rotary_share,
    write_activation,
    write_scaling,
)
from limner.models.families.gguf_fields import GGUFFields, read_gguf_rotary
from limner.models.families.gguf_header import GGUFHeader, header_of
from limner.models.families.gguf_tensors import tensors_of
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed, split_heads
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

NAMES = {
    "gpt_neox.embed_in.weight": "embedding.tokens.weight",
    "gpt_neox.layers.{}.input_layernorm.weight": "blocks.{}.mix.before.weight",
    "gpt_neox.layers.{}.input_layernorm.bias": "blocks.{}.mix.before.bias",
    "gpt_neox.layers.{}.attention.dense.weight": "blocks.{}.mixer.output.weight",
    "gpt_neox.layers.{}.post_attention_layernorm.weight": "blocks.{}.feed.before.weight",
    "gpt_neox.layers.{}.post_attention_layernorm.bias": "blocks.{}.feed.before.bias",
    "gpt_neox.layers.{}.mlp.dense_h_to_4h.weight": "blocks.{}.feedforward.up.weight",
    "gpt_neox.layers.{}.mlp.dense_h_to_4h.bias": "blocks.{}.feedforward.up.bias",
    "gpt_neox.layers.{}.mlp.dense_4h_to_h.weight": "blocks.{}.feedforward.down.weight",
    "gpt_neox.layers.{}.mlp.dense_4h_to_h.bias": "blocks.{}.feedforward.down.bias",
    "gpt_neox.final_layer_norm.weight": "norm.weight",
    "gpt_neox.final_layer_norm.bias": "norm.bias",
}
ATTENTION_BIAS = {"gpt_neox.layers.{}.attention.dense.bias": "blocks.{}.mixer.output.bias"}
HEAD = {"embed_out.weight": "head.output.weight"}
PREFIX = "gpt_neox."
#: Where classes of tokens are kept.
TOKEN_SCORES = "classifier"


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    norm = NormConfig("layer", fields.get("layer_norm_eps", 1e-5))
    return DecoderConfig(
        family="gpt_neox",
        width=fields["hidden_size"],
        context=fields.get("max_position_embeddings", 2048),
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=(_block(fields, norm),) * fields["num_hidden_layers"],
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", False)),
    )


def _block(fields: Mapping[str, Any], norm: NormConfig) -> BlockConfig:
    heads = fields["num_attention_heads"]
    head_width, bias = fields["hidden_size"] // heads, fields.get("attention_bias", True)
    turning = {
        "rope_theta": fields.get("rotary_emb_base"),
        "partial_rotary_factor": fields.get("rotary_pct", 0.25),
    }
    return BlockConfig(
        mixer=AttentionConfig(
            heads=heads,
            key_value_heads=heads,
            head_width=head_width,
            rotary=read_rotary(turning | dict(fields), head_width),
            query_bias=bias,
            key_bias=bias,
            value_bias=bias,
            output_bias=bias,
        ),
        mix=ResidualConfig(before=norm),
        feedforward=FeedForwardConfig(
            fields["intermediate_size"],
            read_activation(fields.get("hidden_act", "gelu")),
            gated=False,
            bias=True,
        ),
        feed=ResidualConfig(before=norm),
        parallel=fields.get("use_parallel_residual", True),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block, norm = config.blocks[0], config.norm
    attention, feedforward = attention_of(block), block.feedforward
    assert isinstance(feedforward, FeedForwardConfig)
    assert norm is not None
    assert attention.rotary is not None
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": config.width,
        "intermediate_size": feedforward.width,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": attention.heads,
        "hidden_act": write_activation(feedforward.activation),
        "attention_bias": attention.query_bias,
        "use_parallel_residual": block.parallel,
        "layer_norm_eps": norm.epsilon,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.head.tied,
        "rotary_pct": rotary_share(attention.rotary.width, attention.head_width),
        "rotary_emb_base": attention.rotary.theta,
        "rope_scaling": write_scaling(attention.rotary.scaling),
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    attention = attention_of(config.blocks[0])
    names = NAMES | (ATTENTION_BIAS if attention.output_bias else {})
    yield from renamed(names | ({} if config.head.tied else HEAD), len(config.blocks))
    kinds = ("weight", "bias") if attention.query_bias else ("weight",)
    for layer in range(len(config.blocks)):
        for kind in kinds:
            yield split_heads(
                f"gpt_neox.layers.{layer}.attention.query_key_value.{kind}",
                [f"blocks.{layer}.mixer.{part}.{kind}" for part in ("query", "key", "value")],
                attention.heads,
                [attention.head_width] * 3,
            )


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    heads, width = file.value("attention.head_count"), file.value("embedding_length")
    return read_config(
        {
            "hidden_size": width,
            "num_attention_heads": heads,
            "intermediate_size": file.value("feed_forward_length"),
            "num_hidden_layers": file.value("block_count"),
            "layer_norm_eps": file.value("attention.layer_norm_epsilon"),
            "use_parallel_residual": file.value("use_parallel_residual", True),
            "vocab_size": file.rows("token_embd.weight"),
            "max_position_embeddings": file.value("context_length"),
            "attention_bias": file.has("blk.0.attn_qkv.bias"),
            "tie_word_embeddings": not file.has("output.weight"),
            **read_gguf_rotary(file, width // heads),
        }
    )


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file; ValueError without biases, which llama.cpp asks for."""
    if not attention_of(config.blocks[0]).query_bias:
        raise ValueError(
            "attention_bias is false but llama.cpp's GPT-NeoX has biases: "
            "this model has no GGUF form"
        )
    parallel = config.blocks[0].parallel
    return header_of(config, "gptneox", ["gelu_tanh", "gelu"], use_parallel_residual=parallel)


def gguf_translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes."""
    return tensors_of(config, fused=True)
