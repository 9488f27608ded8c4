"""T5 1.0 and 1.1 (Raffel et al. 2019; Shazeer 2020), and mT5 (Xue et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.encoder import EncoderConfig
from limner.models.encoder_decoder import EncoderDecoderConfig
from limner.models.families.fields import read_activation, write_activation
from limner.models.families.gguf_fields import GGUFFields
from limner.models.families.gguf_header import GGUFHeader
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.cross_attention import CrossAttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig
from limner.nn.relative import RelativeBiasConfig

#: Any length will do; this is what the models were trained with.
CONTEXT = 512
ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "output"}
FEEDFORWARD = {"wo": "down"}
GATED = {"wi_0": "gate", "wi_1": "up"}
PLAIN = {"wi": "up"}


def read_config(fields: Mapping[str, Any]) -> EncoderDecoderConfig:
    """Our config from the fields of a config.json."""
    tied = _is_tied(fields)
    norm = NormConfig("rms", fields.get("layer_norm_epsilon", 1e-6))
    width = fields["d_model"]
    embedding = EmbeddingConfig(fields["vocab_size"])
    layers = fields["num_layers"]
    written = fields.get("num_decoder_layers") or layers
    return EncoderDecoderConfig(
        family="t5",
        encoder=EncoderConfig(
            family="t5",
            width=width,
            context=CONTEXT,
            embedding=embedding,
            blocks=(_block(fields, norm, causal=False),) * layers,
            norm=norm,
            relative=_relative(fields, both_ways=True),
        ),
        decoder=DecoderConfig(
            family="t5",
            width=width,
            context=CONTEXT,
            embedding=embedding,
            blocks=(_block(fields, norm, causal=True),) * written,
            # A tied head scales down what its table, not made to be a head, would make too large.
            head=LanguageHeadConfig(tied, scale=width**-0.5 if tied else 1.0),
            norm=norm,
            relative=_relative(fields, both_ways=False),
        ),
        start=fields.get("decoder_start_token_id") or 0,
        padding=fields.get("pad_token_id") or 0,
    )


def _is_tied(fields: Mapping[str, Any]) -> bool:
    """Whether the head is the token table, scaled: T5 1.0, but not T5 1.1 nor mT5.

    transformers 5 writes tie_word_embeddings true for all of them, and the difference in another
    field or in the model's type.
    """
    scaled = fields.get("scale_decoder_outputs", fields.get("model_type") != "mt5")
    return bool(scaled and fields.get("tie_word_embeddings", True))


def _relative(fields: Mapping[str, Any], both_ways: bool) -> RelativeBiasConfig:
    return RelativeBiasConfig(
        heads=fields["num_heads"],
        buckets=fields.get("relative_attention_num_buckets", 32),
        furthest=fields.get("relative_attention_max_distance", 128),
        both_ways=both_ways,
    )


def _block(fields: Mapping[str, Any], norm: NormConfig, causal: bool) -> BlockConfig:
    heads = fields["num_heads"]
    # T5 leaves products of queries and keys as they are: its initialisation has the scale in it.
    own = AttentionConfig(heads, heads, fields["d_kv"], causal=causal, relative=True, scale=1.0)
    other = AttentionConfig(heads, heads, fields["d_kv"], causal=False, scale=1.0)
    step = ResidualConfig(before=norm)
    activation = str(fields.get("feed_forward_proj", "relu"))
    gated = activation.startswith("gated-")
    if activation == "gated-gelu":
        activation = "gated-gelu_new"  # the form that T5 1.1 was trained with
    return BlockConfig(
        mixer=own,
        mix=step,
        cross=CrossAttentionConfig(other) if causal else None,
        cross_mix=step,
        feedforward=FeedForwardConfig(
            fields["d_ff"], read_activation(activation.removeprefix("gated-")), gated
        ),
        feed=step,
    )


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block, relative, norm = config.blocks[0], config.decoder.relative, config.decoder.norm
    attention, feedforward = block.mixer, block.feedforward
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert relative is not None
    assert norm is not None
    gate = "gated-" if feedforward.gated else ""
    activation = write_activation(feedforward.activation)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "d_model": config.width,
        "d_kv": attention.head_width,
        "d_ff": feedforward.width,
        "num_layers": len(config.encoder.blocks),
        "num_decoder_layers": len(config.blocks),
        "num_heads": attention.heads,
        "relative_attention_num_buckets": relative.buckets,
        "relative_attention_max_distance": relative.furthest,
        "layer_norm_epsilon": norm.epsilon,
        "feed_forward_proj": "gated-gelu"
        if gate and feedforward.activation == "gelu_tanh"
        else gate + activation,
        "vocab_size": config.vocabulary,
        "decoder_start_token_id": config.start,
        "pad_token_id": config.padding,
        "tie_word_embeddings": config.decoder.head.tied,
        "scale_decoder_outputs": config.decoder.head.tied,
    }


def translations(config: EncoderDecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    yield Translation(("shared.weight",), ("decoder.embedding.tokens.weight",))
    if not config.decoder.head.tied:
        # Left out by transformers when it happens to equal the table.
        yield Translation(
            ("lm_head.weight",), ("decoder.head.output.weight",), instead=("shared.weight",)
        )
    yield from _stack(config, "encoder", {"SelfAttention": "mixer"})
    yield from _stack(config, "decoder", {"SelfAttention": "mixer", "EncDecAttention": "cross"})


def _stack(
    config: EncoderDecoderConfig, side: str, attentions: Mapping[str, str]
) -> Iterator[Translation]:
    """The names of one side, whose sub-layers stand in a numbered list."""
    blocks = config.encoder.blocks if side == "encoder" else config.blocks
    feedforward = blocks[0].feedforward
    assert isinstance(feedforward, FeedForwardConfig)
    layer = f"{side}.block.{{}}.layer"
    names = {f"{side}.final_layer_norm.weight": f"{side}.norm.weight"}
    for number, (theirs, ours) in enumerate(attentions.items()):
        step = "mix" if ours == "mixer" else "cross_mix"
        norm = f"{layer}.{number}.layer_norm.weight"
        names[norm] = f"{side}.blocks.{{}}.{step}.before.weight"
        for tensor, part in ATTENTION.items():
            name = f"{layer}.{number}.{theirs}.{tensor}.weight"
            names[name] = f"{side}.blocks.{{}}.{ours}.{part}.weight"
    last = f"{layer}.{len(attentions)}"
    names[f"{last}.layer_norm.weight"] = f"{side}.blocks.{{}}.feed.before.weight"
    for tensor, part in (FEEDFORWARD | (GATED if feedforward.gated else PLAIN)).items():
        name = f"{last}.DenseReluDense.{tensor}.weight"
        names[name] = f"{side}.blocks.{{}}.feedforward.{part}.weight"
    yield from renamed(names, len(blocks))
    table = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield Translation((table,), (f"{side}.relative.table.weight",))


#: Within a layer of a GGUF file.
GGUF_LAYER = {
    "attn_norm": "mix.before",
    "attn_q": "mixer.query",
    "attn_k": "mixer.key",
    "attn_v": "mixer.value",
    "attn_o": "mixer.output",
    "ffn_norm": "feed.before",
    "ffn_up": "feedforward.up",
    "ffn_down": "feedforward.down",
}
GGUF_GATE = {"ffn_gate": "feedforward.gate"}
GGUF_CROSS = {
    "cross_attn_norm": "cross_mix.before",
    "cross_attn_q": "cross.query",
    "cross_attn_k": "cross.key",
    "cross_attn_v": "cross.value",
    "cross_attn_o": "cross.output",
}
#: What llama.cpp takes for granted.
GGUF_FURTHEST = 128


def read_gguf(file: GGUFFields) -> EncoderDecoderConfig:
    """Our config from the metadata of a GGUF file."""
    layers = file.value("block_count")
    tied = not file.has("output.weight")
    return read_config(
        {
            "d_model": file.value("embedding_length"),
            "d_kv": file.value("attention.key_length"),
            "d_ff": file.value("feed_forward_length"),
            "num_layers": layers,
            "num_decoder_layers": file.value("decoder_block_count", layers),
            "num_heads": file.value("attention.head_count"),
            "relative_attention_num_buckets": file.value("attention.relative_buckets_count"),
            "relative_attention_max_distance": GGUF_FURTHEST,
            "layer_norm_epsilon": file.value("attention.layer_norm_rms_epsilon"),
            "feed_forward_proj": "gated-gelu" if file.has("enc.blk.0.ffn_gate.weight") else "relu",
            "vocab_size": file.rows("token_embd.weight"),
            "decoder_start_token_id": file.value("decoder_start_token_id", 0),
            "pad_token_id": file.metadata.get("tokenizer.ggml.padding_token_id", 0),
            "tie_word_embeddings": tied,
            "scale_decoder_outputs": tied,
        }
    )


def write_gguf(config: EncoderDecoderConfig) -> GGUFHeader:
    """The header of a GGUF file; ValueError for what llama.cpp would do otherwise.

    llama.cpp leaves out the scale of a tied head: the order of its logits is right, their spread is
    the root of the width too large.
    """
    fields = write_config(config)
    _refuse_other_kinds(fields)
    values = {
        "context_length": config.context,
        "embedding_length": config.width,
        "feed_forward_length": fields["d_ff"],
        "block_count": fields["num_layers"],
        "decoder_block_count": fields["num_decoder_layers"],
        "vocab_size": config.vocabulary,
        "attention.head_count": fields["num_heads"],
        "attention.key_length": fields["d_kv"],
        "attention.value_length": fields["d_kv"],
        "attention.layer_norm_epsilon": fields["layer_norm_epsilon"],
        "attention.layer_norm_rms_epsilon": fields["layer_norm_epsilon"],
        "attention.relative_buckets_count": fields["relative_attention_num_buckets"],
        "decoder_start_token_id": config.start,
    }
    metadata = {f"t5.{name}": value for name, value in values.items()}
    return GGUFHeader({"general.architecture": "t5"} | metadata)


def _refuse_other_kinds(fields: Mapping[str, Any]) -> None:
    if fields["feed_forward_proj"] not in ("relu", "gated-gelu"):
        raise ValueError(
            f"the feed-forward is '{fields['feed_forward_proj']}' but llama.cpp knows 'relu' and "
            "'gated-gelu': this model has no GGUF form"
        )
    if fields["relative_attention_max_distance"] != GGUF_FURTHEST:
        raise ValueError(
            "relative_attention_max_distance is "
            f"{fields['relative_attention_max_distance']} but llama.cpp would take "
            f"{GGUF_FURTHEST}: this model has no GGUF form"
        )


def gguf_translations(config: EncoderDecoderConfig) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes."""
    stem = {"token_embd.weight": "decoder.embedding.tokens.weight"}
    if not config.decoder.head.tied:
        stem["output.weight"] = "decoder.head.output.weight"
    yield from renamed(stem, 1)
    feedforward = config.blocks[0].feedforward
    assert isinstance(feedforward, FeedForwardConfig)
    layer = GGUF_LAYER | (GGUF_GATE if feedforward.gated else {})
    yield from _gguf_stack("enc", "encoder", layer, len(config.encoder.blocks))
    yield from _gguf_stack("dec", "decoder", layer | GGUF_CROSS, len(config.blocks))


def _gguf_stack(
    prefix: str, side: str, layer: Mapping[str, str], layers: int
) -> Iterator[Translation]:
    names = {
        f"{prefix}.output_norm.weight": f"{side}.norm.weight",
        f"{prefix}.blk.0.attn_rel_b.weight": f"{side}.relative.table.weight",
    }
    for theirs, ours in layer.items():
        names[f"{prefix}.blk.{{}}.{theirs}.weight"] = f"{side}.blocks.{{}}.{ours}.weight"
    return renamed(names, layers)
