"""GPT-2 (Radford et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import read_activation, write_activation
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed, split, transposed
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

NAMES = {
    "transformer.wte.weight": "embedding.tokens.weight",
    "transformer.wpe.weight": "embedding.positions.weight",
    "transformer.h.{}.ln_1.weight": "blocks.{}.mix.before.weight",
    "transformer.h.{}.ln_1.bias": "blocks.{}.mix.before.bias",
    "transformer.h.{}.attn.c_proj.bias": "blocks.{}.mixer.output.bias",
    "transformer.h.{}.ln_2.weight": "blocks.{}.feed.before.weight",
    "transformer.h.{}.ln_2.bias": "blocks.{}.feed.before.bias",
    "transformer.h.{}.mlp.c_fc.bias": "blocks.{}.feedforward.up.bias",
    "transformer.h.{}.mlp.c_proj.bias": "blocks.{}.feedforward.down.bias",
    "transformer.ln_f.weight": "norm.weight",
    "transformer.ln_f.bias": "norm.bias",
}
INPUT_FIRST = {
    "transformer.h.{}.attn.c_proj.weight": "blocks.{}.mixer.output.weight",
    "transformer.h.{}.mlp.c_fc.weight": "blocks.{}.feedforward.up.weight",
    "transformer.h.{}.mlp.c_proj.weight": "blocks.{}.feedforward.down.weight",
}
HEAD = {"lm_head.weight": "head.output.weight"}
PREFIX = "transformer."


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    width, context = fields["n_embd"], fields["n_positions"]
    norm = NormConfig("layer", fields.get("layer_norm_epsilon", 1e-5))
    return DecoderConfig(
        family="gpt2",
        width=width,
        context=context,
        embedding=EmbeddingConfig(fields["vocab_size"], learned_positions=context),
        blocks=tuple(_block(fields, layer, norm) for layer in range(fields["n_layer"])),
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", True)),
    )


def _block(fields: Mapping[str, Any], layer: int, norm: NormConfig) -> BlockConfig:
    width, heads = fields["n_embd"], fields["n_head"]
    scale = 1 / math.sqrt(width // heads) if fields.get("scale_attn_weights", True) else 1.0
    if fields.get("scale_attn_by_inverse_layer_idx"):
        scale /= layer + 1
    inner = fields.get("n_inner") or 4 * width
    activation = read_activation(fields.get("activation_function", "gelu_new"))
    return BlockConfig(
        mixer=AttentionConfig(
            heads=heads,
            key_value_heads=heads,
            head_width=width // heads,
            scale=scale,
            query_bias=True,
            key_bias=True,
            value_bias=True,
            output_bias=True,
        ),
        mix=ResidualConfig(before=norm),
        feedforward=FeedForwardConfig(inner, activation, gated=False, bias=True),
        feed=ResidualConfig(before=norm),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    attention, feedforward, norm = config.blocks[0].mixer, config.blocks[0].feedforward, config.norm
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert norm is not None
    scales = [
        block.mixer.scale for block in config.blocks if isinstance(block.mixer, AttentionConfig)
    ]
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_embd": config.width,
        "n_layer": len(config.blocks),
        "n_head": attention.heads,
        "n_positions": config.context,
        "n_inner": feedforward.width,
        "activation_function": write_activation(feedforward.activation),
        "layer_norm_epsilon": norm.epsilon,
        "scale_attn_weights": attention.scale != 1.0,
        "scale_attn_by_inverse_layer_idx": len(set(scales)) > 1,
        "vocab_size": config.vocabulary,
        "tie_word_embeddings": config.head.tied,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    layers, width = len(config.blocks), config.width
    yield from renamed(NAMES | ({} if config.head.tied else HEAD), layers)
    yield from transposed(INPUT_FIRST, layers)
    for layer in range(layers):
        fused = f"transformer.h.{layer}.attn.c_attn"
        parts = [f"blocks.{layer}.mixer.{part}" for part in ("query", "key", "value")]
        for kind in ("weight", "bias"):
            ours = [f"{part}.{kind}" for part in parts]
            yield split(f"{fused}.{kind}", ours, [width] * 3, transpose=kind == "weight")
