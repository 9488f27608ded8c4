"""Whisper: speech to text (Radford et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
from limner.nn.fronts import SoundConfig
from limner.nn.norms import NormConfig

ATTENTION = {"q_proj": "query", "v_proj": "value", "out_proj": "output"}
FEEDFORWARD = {"fc1": "feedforward.up", "fc2": "feedforward.down"}
FRONT = both("model.encoder.conv1", "encoder.front.first") | both(
    "model.encoder.conv2", "encoder.front.second"
)


def read_config(fields: Mapping[str, Any]) -> EncoderDecoderConfig:
    """Our config from the fields of a config.json."""
    width, norm = fields["d_model"], NormConfig("layer", 1e-5)
    heard, written = fields["max_source_positions"], fields["max_target_positions"]
    return EncoderDecoderConfig(
        family="whisper",
        encoder=EncoderConfig(
            family="whisper",
            width=width,
            context=heard,
            embedding=EmbeddingConfig(0, learned_positions=heard),
            blocks=_blocks(fields, "encoder", norm),
            norm=norm,
            front=SoundConfig(fields["num_mel_bins"]),
        ),
        decoder=DecoderConfig(
            family="whisper",
            width=width,
            context=written,
            embedding=EmbeddingConfig(fields["vocab_size"], learned_positions=written),
            blocks=_blocks(fields, "decoder", norm),
            head=LanguageHeadConfig(tied=True),
            norm=norm,
        ),
        start=fields["decoder_start_token_id"],
        padding=fields["pad_token_id"],
        shared_embedding=False,
    )


def _blocks(fields: Mapping[str, Any], side: str, norm: NormConfig) -> tuple[BlockConfig, ...]:
    step = ResidualConfig(before=norm)
    activation = read_activation(fields.get("activation_function", "gelu"))
    block = BlockConfig(
        mixer=_attention(fields, side, causal=side == "decoder"),
        mix=step,
        cross=CrossAttentionConfig(_attention(fields, side, causal=False))
        if side == "decoder"
        else None,
        cross_mix=step,
        feedforward=FeedForwardConfig(
            fields[f"{side}_ffn_dim"], activation, gated=False, bias=True
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
        value_bias=True,
        output_bias=True,
    )


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    assert isinstance(config.encoder.front, SoundConfig)
    fields: dict[str, Any] = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "d_model": config.width,
        "num_mel_bins": config.encoder.front.bands,
        "vocab_size": config.vocabulary,
        "max_source_positions": config.encoder.context,
        "max_target_positions": config.context,
        "decoder_start_token_id": config.start,
        "pad_token_id": config.padding,
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
    table = {"model.decoder.embed_tokens.weight": "decoder.embedding.tokens.weight"}
    yield from renamed(table | FRONT, 1)
    yield from _stack(len(config.encoder.blocks), "encoder", {"self_attn": ("mixer", "mix")})
    attentions = {"self_attn": ("mixer", "mix"), "encoder_attn": ("cross", "cross_mix")}
    yield from _stack(len(config.blocks), "decoder", attentions)


def _stack(
    layers: int, side: str, attentions: Mapping[str, tuple[str, str]]
) -> Iterator[Translation]:
    """The names of one side."""
    theirs, ours = f"model.{side}.layers.{{}}", f"{side}.blocks.{{}}"
    names = both(f"model.{side}.layer_norm", f"{side}.norm")
    names[f"model.{side}.embed_positions.weight"] = f"{side}.embedding.positions.weight"
    names |= both(f"{theirs}.final_layer_norm", f"{ours}.feed.before")
    for attention, (mixer, step) in attentions.items():
        names |= both(f"{theirs}.{attention}_layer_norm", f"{ours}.{step}.before")
        names[f"{theirs}.{attention}.k_proj.weight"] = f"{ours}.{mixer}.key.weight"
        for tensor, part in ATTENTION.items():
            names |= both(f"{theirs}.{attention}.{tensor}", f"{ours}.{mixer}.{part}")
    for tensor, part in FEEDFORWARD.items():
        names |= both(f"{theirs}.{tensor}", f"{ours}.{part}")
    return renamed(names, layers)
