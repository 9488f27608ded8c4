"""GPT-2 (Radford et al. 2019) and, with sparse layers, the shape of GPT-3 (Brown et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import attention_of, read_activation, write_activation
from limner.models.families.gguf_fields import GGUFFields
from limner.models.families.gguf_header import GGUFHeader, header_of
from limner.models.families.gguf_tensors import tensors_of
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed, split, transposed
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig
from limner.nn.sparse import Banded

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
#: Where classes of tokens are kept.
TOKEN_SCORES = "classifier"
SPARSE = "limner_sparse_attention"


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
            pattern=_pattern(fields, layer),
            query_bias=True,
            key_bias=True,
            value_bias=True,
            output_bias=True,
        ),
        mix=ResidualConfig(before=norm),
        feedforward=FeedForwardConfig(inner, activation, gated=False, bias=True),
        feed=ResidualConfig(before=norm),
    )


def _pattern(fields: Mapping[str, Any], layer: int) -> Banded | None:
    """The sparse pattern of a layer: GPT-3 alternates dense and banded ones (Brown et al. 2020).

    The field is ours, {"layers": [1, 3, ...], "band": 128, "stride": null}; transformers, which has
    no GPT-3, would take all layers for dense.
    """
    sparse = fields.get(SPARSE)
    if sparse is None or layer not in sparse["layers"]:
        return None
    return Banded(sparse["band"], sparse.get("stride"))


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    attention, feedforward, norm = config.blocks[0].mixer, config.blocks[0].feedforward, config.norm
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert norm is not None
    scales = [
        block.mixer.scale for block in config.blocks if isinstance(block.mixer, AttentionConfig)
    ]
    return _write_patterns(config) | {
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


def _write_patterns(config: DecoderConfig) -> dict[str, Any]:
    mixers = [block.mixer for block in config.blocks]
    patterns = [mixer.pattern for mixer in mixers if isinstance(mixer, AttentionConfig)]
    layers = [layer for layer, pattern in enumerate(patterns) if pattern]
    if not layers:
        return {}
    sparse = patterns[layers[0]]
    assert sparse is not None
    return {SPARSE: {"layers": layers, "band": sparse.band, "stride": sparse.stride}}


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    layers = len(config.blocks)
    yield from renamed(NAMES | ({} if config.head.tied else HEAD), layers)
    yield from transposed(INPUT_FIRST, layers)
    for layer in range(layers):
        attention = attention_of(config.blocks[layer])
        inner = attention.heads * attention.head_width
        fused = f"transformer.h.{layer}.attn.c_attn"
        parts = [f"blocks.{layer}.mixer.{part}" for part in ("query", "key", "value")]
        for kind in ("weight", "bias"):
            ours = [f"{part}.{kind}" for part in parts]
            yield split(f"{fused}.{kind}", ours, [inner] * 3, transpose=kind == "weight")


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    return read_config(
        {
            "n_embd": file.value("embedding_length"),
            "n_layer": file.value("block_count"),
            "n_head": file.value("attention.head_count"),
            "n_positions": file.rows("position_embd.weight"),
            "n_inner": file.value("feed_forward_length"),
            "layer_norm_epsilon": file.value("attention.layer_norm_epsilon"),
            "vocab_size": file.rows("token_embd.weight"),
            "tie_word_embeddings": not file.has("output.weight"),
        }
    )


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file; ValueError for what llama.cpp's GPT-2 does not do."""
    fields = write_config(config)
    plain = fields["scale_attn_weights"] and not fields["scale_attn_by_inverse_layer_idx"]
    if SPARSE in fields or not plain:
        raise ValueError(
            "sparse layers and scores not scaled by the head width alone have no GGUF form: "
            "keep this model as a folder"
        )
    return header_of(config, "gpt2", ["gelu_tanh"])


def gguf_translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes."""
    return tensors_of(config, fused=True)
