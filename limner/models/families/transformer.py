"""The original transformer (Vaswani et al. 2017).

No ecosystem format exists: config.json has our own fields, and tensors are named as in a PyTorch
module of an `embedding`, which is also the head, and a `transformer` (`torch.nn.Transformer`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.encoder import EncoderConfig
from limner.models.encoder_decoder import EncoderDecoderConfig
from limner.models.families.encoder_words import both
from limner.models.families.fields import read_activation, write_activation
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed, split
from limner.nn.attention import AttentionConfig
from limner.nn.cross_attention import CrossAttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

#: Sines and cosines have no end; this is what the paper's models were trained with, about.
CONTEXT = 512
FEEDFORWARD = {"linear1": "feedforward.up", "linear2": "feedforward.down"}
#: The attentions of one side's layers: their name, ours, and those of the norm after.
READING = [("self_attn", "mixer", "mix", "norm1")]
WRITING = [*READING, ("multihead_attn", "cross", "cross_mix", "norm2")]


def read_config(fields: Mapping[str, Any]) -> EncoderDecoderConfig:
    """Our config from the fields of a config.json."""
    width = fields["d_model"]
    norm = NormConfig("layer", fields.get("layer_norm_eps", 1e-5))
    embedding = EmbeddingConfig(
        fields["vocab_size"], scale=math.sqrt(width), sinusoids="interleaved"
    )
    last = norm if fields.get("final_norm") else None
    context = fields.get("max_position_embeddings", CONTEXT)
    sides = {
        side: (_block(fields, norm, causal=side == "decoder"),) * fields[f"{side}_layers"]
        for side in ("encoder", "decoder")
    }
    family = "limner_transformer"
    head = LanguageHeadConfig(tied=True)
    return EncoderDecoderConfig(
        family,
        EncoderConfig(family, width, context, embedding, sides["encoder"], norm=last),
        DecoderConfig(family, width, context, embedding, sides["decoder"], head, norm=last),
        start=fields.get("decoder_start_token_id", 0),
        padding=fields.get("pad_token_id", 0),
    )


def _block(fields: Mapping[str, Any], norm: NormConfig, causal: bool) -> BlockConfig:
    heads = fields["num_heads"]
    own, other = (
        AttentionConfig(
            heads=heads,
            key_value_heads=heads,
            head_width=fields["d_model"] // heads,
            causal=hidden,
            query_bias=True,
            key_bias=True,
            value_bias=True,
            output_bias=True,
        )
        for hidden in (causal, False)
    )
    activation = read_activation(fields.get("activation_function", "relu"))
    return BlockConfig(
        mixer=own,
        mix=ResidualConfig(after=norm),
        cross=CrossAttentionConfig(other) if causal else None,
        cross_mix=ResidualConfig(after=norm),
        feedforward=FeedForwardConfig(fields["d_ff"], activation, gated=False, bias=True),
        feed=ResidualConfig(after=norm),
    )


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block = config.blocks[0]
    attention, feedforward, norm = block.mixer, block.feedforward, block.mix.after
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert norm is not None
    return {
        "model_type": "limner_transformer",
        "is_encoder_decoder": True,
        "d_model": config.width,
        "d_ff": feedforward.width,
        "encoder_layers": len(config.encoder.blocks),
        "decoder_layers": len(config.blocks),
        "num_heads": attention.heads,
        "activation_function": write_activation(feedforward.activation),
        "layer_norm_eps": norm.epsilon,
        "final_norm": config.decoder.norm is not None,
        "max_position_embeddings": config.context,
        "vocab_size": config.vocabulary,
        "decoder_start_token_id": config.start,
        "pad_token_id": config.padding,
    }


def translations(config: EncoderDecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    yield Translation(("embedding.weight",), ("decoder.embedding.tokens.weight",))
    yield from _stack(config.encoder, "encoder", READING)
    yield from _stack(config.decoder, "decoder", WRITING)


def _stack(
    config: EncoderConfig | DecoderConfig, side: str, attentions: list[tuple[str, str, str, str]]
) -> Iterator[Translation]:
    """The names of one side."""
    theirs, ours = f"transformer.{side}.layers.{{}}", f"{side}.blocks.{{}}"
    names = both(f"{theirs}.norm{len(attentions) + 1}", f"{ours}.feed.after")
    for attention, mixer, step, norm in attentions:
        names |= both(f"{theirs}.{norm}", f"{ours}.{step}.after")
        names |= both(f"{theirs}.{attention}.out_proj", f"{ours}.{mixer}.output")
        for layer in range(len(config.blocks)):
            place = ours.format(layer)
            for kind in ("weight", "bias"):
                parts = [f"{place}.{mixer}.{part}.{kind}" for part in ("query", "key", "value")]
                fused = f"{theirs.format(layer)}.{attention}.in_proj_{kind}"
                yield split(fused, parts, [config.width] * 3)
    for tensor, part in FEEDFORWARD.items():
        names |= both(f"{theirs}.{tensor}", f"{ours}.{part}")
    if config.norm:
        names |= both(f"transformer.{side}.norm", f"{side}.norm")
    yield from renamed(names, len(config.blocks))
