"""BLOOM (Le Scao et al. 2022): ALiBi, and token vectors normalised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import attention_of
from limner.models.families.gguf_fields import GGUFFields
from limner.models.families.gguf_header import GGUFHeader, header_of
from limner.models.families.gguf_tensors import tensors_of
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed, split_heads
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

NAMES = {
    "transformer.word_embeddings.weight": "embedding.tokens.weight",
    "transformer.word_embeddings_layernorm.weight": "embedding.norm.weight",
    "transformer.word_embeddings_layernorm.bias": "embedding.norm.bias",
    "transformer.h.{}.input_layernorm.weight": "blocks.{}.mix.before.weight",
    "transformer.h.{}.input_layernorm.bias": "blocks.{}.mix.before.bias",
    "transformer.h.{}.self_attention.dense.weight": "blocks.{}.mixer.output.weight",
    "transformer.h.{}.self_attention.dense.bias": "blocks.{}.mixer.output.bias",
    "transformer.h.{}.post_attention_layernorm.weight": "blocks.{}.feed.before.weight",
    "transformer.h.{}.post_attention_layernorm.bias": "blocks.{}.feed.before.bias",
    "transformer.h.{}.mlp.dense_h_to_4h.weight": "blocks.{}.feedforward.up.weight",
    "transformer.h.{}.mlp.dense_h_to_4h.bias": "blocks.{}.feedforward.up.bias",
    "transformer.h.{}.mlp.dense_4h_to_h.weight": "blocks.{}.feedforward.down.weight",
    "transformer.h.{}.mlp.dense_4h_to_h.bias": "blocks.{}.feedforward.down.bias",
    "transformer.ln_f.weight": "norm.weight",
    "transformer.ln_f.bias": "norm.bias",
}
HEAD = {"lm_head.weight": "head.output.weight"}
PREFIX = "transformer."
#: Where classes of tokens are kept.
TOKEN_SCORES = "classifier"


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json, in the words of any year."""
    width = fields.get("hidden_size") or fields["n_embed"]
    heads = fields.get("n_head") or fields["num_attention_heads"]
    layers = fields.get("n_layer") or fields["num_hidden_layers"]
    norm = NormConfig("layer", fields.get("layer_norm_epsilon", 1e-5))
    residual = ResidualConfig(
        before=norm, skip_normed=fields.get("apply_residual_connection_post_layernorm", False)
    )
    block = BlockConfig(
        mixer=AttentionConfig(
            heads=heads,
            key_value_heads=heads,
            head_width=width // heads,
            alibi=True,
            query_bias=True,
            key_bias=True,
            value_bias=True,
            output_bias=True,
        ),
        mix=residual,
        feedforward=FeedForwardConfig(4 * width, "gelu_tanh", gated=False, bias=True),
        feed=residual,
    )
    return DecoderConfig(
        family="bloom",
        width=width,
        context=fields.get("seq_length", 2048),
        embedding=EmbeddingConfig(fields["vocab_size"], norm=norm),
        blocks=(block,) * layers,
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", True)),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block, norm = config.blocks[0], config.norm
    assert norm is not None
    return {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "hidden_size": config.width,
        "n_layer": len(config.blocks),
        "n_head": attention_of(block).heads,
        "layer_norm_epsilon": norm.epsilon,
        "apply_residual_connection_post_layernorm": block.mix.skip_normed,
        "vocab_size": config.vocabulary,
        "seq_length": config.context,
        "tie_word_embeddings": config.head.tied,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    attention = attention_of(config.blocks[0])
    yield from renamed(NAMES | ({} if config.head.tied else HEAD), len(config.blocks))
    for layer in range(len(config.blocks)):
        for kind in ("weight", "bias"):
            yield split_heads(
                f"transformer.h.{layer}.self_attention.query_key_value.{kind}",
                [f"blocks.{layer}.mixer.{part}.{kind}" for part in ("query", "key", "value")],
                attention.heads,
                [attention.head_width] * 3,
            )


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    return read_config(
        {
            "hidden_size": file.value("embedding_length"),
            "n_head": file.value("attention.head_count"),
            "n_layer": file.value("block_count"),
            "layer_norm_epsilon": file.value("attention.layer_norm_epsilon"),
            "vocab_size": file.rows("token_embd.weight"),
            "seq_length": file.value("context_length"),
            "tie_word_embeddings": not file.has("output.weight"),
        }
    )


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file."""
    return header_of(config, "bloom", ["gelu_tanh"])


def gguf_translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes."""
    return tensors_of(config, fused=True)
