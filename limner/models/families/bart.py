"""BART (Lewis et al. 2019), mBART (Liu et al. 2020) and Marian (Junczys-Dowmunt et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.encoder import EncoderConfig
from limner.models.encoder_decoder import EncoderDecoderConfig
from limner.models.families.encoder_words import both
from limner.models.families.fields import read_activation, write_activation
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.cross_attention import CrossAttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

#: BART's tables of positions begin with two that are not used.
FIRST_POSITION = 2
ATTENTION = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
FEEDFORWARD = {"fc1": "feedforward.up", "fc2": "feedforward.down"}


def read_config(fields: Mapping[str, Any]) -> EncoderDecoderConfig:
    """Our config from the fields of a config.json."""
    kind = fields["model_type"]
    sinusoidal, first_norm = kind == "marian", kind == "mbart"
    width, context = fields["d_model"], fields["max_position_embeddings"]
    norm = NormConfig("layer", 1e-5)
    embedding = EmbeddingConfig(
        fields["vocab_size"],
        learned_positions=0 if sinusoidal else context + FIRST_POSITION,
        first_position=0 if sinusoidal else FIRST_POSITION,
        scale=math.sqrt(width) if fields.get("scale_embedding") else 1.0,
        norm=None if sinusoidal else norm,
        sinusoids="halves" if sinusoidal else None,
    )
    last = norm if first_norm else None
    encoder = EncoderConfig(
        family="bart",
        width=width,
        context=context,
        embedding=embedding,
        blocks=_blocks(fields, "encoder", norm, first_norm),
        norm=last,
    )
    decoder = DecoderConfig(
        family="bart",
        width=width,
        context=context,
        embedding=embedding,
        blocks=_blocks(fields, "decoder", norm, first_norm),
        head=LanguageHeadConfig(fields.get("tie_word_embeddings", True), bias=True),
        norm=last,
    )
    start, padding = fields.get("decoder_start_token_id"), fields.get("pad_token_id")
    return EncoderDecoderConfig(
        "bart",
        encoder,
        decoder,
        start=2 if start is None else start,
        padding=1 if padding is None else padding,
    )


def _blocks(
    fields: Mapping[str, Any], side: str, norm: NormConfig, first_norm: bool
) -> tuple[BlockConfig, ...]:
    """The layers of one side; the decoder's look at the source."""
    own = _attention(fields, side, causal=side == "decoder")
    other = _attention(fields, side, causal=False)
    step = ResidualConfig(before=norm) if first_norm else ResidualConfig(after=norm)
    block = BlockConfig(
        mixer=own,
        mix=step,
        cross=CrossAttentionConfig(other) if side == "decoder" else None,
        cross_mix=step,
        feedforward=FeedForwardConfig(
            fields[f"{side}_ffn_dim"],
            read_activation(fields.get("activation_function", "gelu")),
            gated=False,
            bias=True,
        ),
        feed=step,
    )
    return (block,) * fields[f"{side}_layers"]


def _attention(fields: Mapping[str, Any], side: str, causal: bool) -> AttentionConfig:
    heads = fields[f"{side}_attention_heads"]
    return AttentionConfig(
        heads=heads,
        key_value_heads=heads,
        head_width=fields["d_model"] // heads,
        causal=causal,
        query_bias=True,
        key_bias=True,
        value_bias=True,
        output_bias=True,
    )


def _type(config: EncoderDecoderConfig) -> str:
    """Which of the three a config is of, by its parts."""
    if config.decoder.embedding.sinusoids is not None:
        return "marian"
    return "bart" if config.decoder.norm is None else "mbart"


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    kind = _type(config)
    names = {"marian": "MarianMTModel", "bart": "BartForConditionalGeneration"}
    fields = {
        "architectures": [names.get(kind, "MBartForConditionalGeneration")],
        "model_type": kind,
        "is_encoder_decoder": True,
        "d_model": config.width,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "scale_embedding": config.decoder.embedding.scale != 1.0,
        "decoder_start_token_id": config.start,
        "pad_token_id": config.padding,
        "forced_eos_token_id": None,
        "tie_word_embeddings": config.decoder.head.tied,
    }
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        attention, feedforward = stack.blocks[0].mixer, stack.blocks[0].feedforward
        assert isinstance(attention, AttentionConfig)
        assert isinstance(feedforward, FeedForwardConfig)
        fields |= {
            f"{side}_layers": len(stack.blocks),
            f"{side}_attention_heads": attention.heads,
            f"{side}_ffn_dim": feedforward.width,
            "activation_function": write_activation(feedforward.activation),
        }
    return fields


def translations(config: EncoderDecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    table = "model.shared.weight"
    tokens = "decoder.embedding.tokens.weight"
    yield Translation((table,), (tokens,), instead=("model.decoder.embed_tokens.weight",))
    yield Translation(("final_logits_bias",), ("decoder.head.output.bias",), _drop_row, _add_row)
    if not config.decoder.head.tied:
        yield Translation(("lm_head.weight",), ("decoder.head.output.weight",), instead=(table,))
    yield from _stack(config.encoder, "encoder", {"self_attn": ("mixer", "mix")})
    consulting = {"self_attn": ("mixer", "mix"), "encoder_attn": ("cross", "cross_mix")}
    yield from _stack(config.decoder, "decoder", consulting)


def _drop_row(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensor[0] for tensor in tensors]


def _add_row(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    return [tensor[None] for tensor in tensors]


def _stack(
    config: EncoderConfig | DecoderConfig, side: str, attentions: Mapping[str, tuple[str, str]]
) -> Iterator[Translation]:
    """The names of one side."""
    place = "before" if config.blocks[0].mix.before else "after"
    theirs, ours = f"model.{side}.layers.{{}}", f"{side}.blocks.{{}}"
    names: dict[str, str] = {}
    for attention, (mixer, step) in attentions.items():
        norm = f"{theirs}.{attention}_layer_norm"
        names |= both(norm, f"{ours}.{step}.{place}")
        for tensor, part in ATTENTION.items():
            names |= both(f"{theirs}.{attention}.{tensor}", f"{ours}.{mixer}.{part}")
    names |= both(f"{theirs}.final_layer_norm", f"{ours}.feed.{place}")
    for tensor, part in FEEDFORWARD.items():
        names |= both(f"{theirs}.{tensor}", f"{ours}.{part}")
    if config.embedding.learned_positions:
        positions = f"model.{side}.embed_positions.weight"
        names[positions] = f"{side}.embedding.positions.weight"
    if config.embedding.norm:
        names |= both(f"model.{side}.layernorm_embedding", f"{side}.embedding.norm")
    if config.norm:
        names |= both(f"model.{side}.layer_norm", f"{side}.norm")
    return renamed(names, len(config.blocks))
