"""RWKV-4 (Peng et al. 2023). Each of its layers is two of our blocks, one a mixer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.embedding import EmbeddingConfig
from limner.nn.norms import NormConfig
from limner.nn.rwkv import ChannelMixConfig, TimeMixConfig

STEM = {
    "rwkv.embeddings.weight": "embedding.tokens.weight",
    "rwkv.blocks.0.pre_ln.weight": "embedding.norm.weight",
    "rwkv.blocks.0.pre_ln.bias": "embedding.norm.bias",
    "rwkv.ln_out.weight": "norm.weight",
    "rwkv.ln_out.bias": "norm.bias",
}
TIME = {
    "ln1.weight": "mix.before.weight",
    "ln1.bias": "mix.before.bias",
    "attention.time_decay": "mixer.log_decay",
    "attention.time_first": "mixer.bonus",
    "attention.key.weight": "mixer.key.weight",
    "attention.value.weight": "mixer.value.weight",
    "attention.receptance.weight": "mixer.gate.weight",
    "attention.output.weight": "mixer.output.weight",
}
TIME_SHARES = {
    "attention.time_mix_key": "mixer.for_key.share",
    "attention.time_mix_value": "mixer.for_value.share",
    "attention.time_mix_receptance": "mixer.for_gate.share",
}
CHANNEL = {
    "ln2.weight": "mix.before.weight",
    "ln2.bias": "mix.before.bias",
    "feed_forward.key.weight": "mixer.key.weight",
    "feed_forward.receptance.weight": "mixer.gate.weight",
    "feed_forward.value.weight": "mixer.output.weight",
}
CHANNEL_SHARES = {
    "feed_forward.time_mix_key": "mixer.for_key.share",
    "feed_forward.time_mix_receptance": "mixer.for_gate.share",
}
HEAD = {"head.weight": "head.output.weight"}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    width = fields["hidden_size"]
    norm = NormConfig("layer", fields.get("layer_norm_epsilon", 1e-5))
    residual = ResidualConfig(before=norm)
    layer = (
        BlockConfig(TimeMixConfig(fields.get("attention_hidden_size") or width), residual),
        BlockConfig(ChannelMixConfig(fields.get("intermediate_size") or 4 * width), residual),
    )
    return DecoderConfig(
        family="rwkv",
        width=width,
        context=fields.get("context_length", 1024),
        embedding=EmbeddingConfig(fields["vocab_size"], norm=norm),
        blocks=layer * fields["num_hidden_layers"],
        norm=NormConfig("layer", 1e-5),
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", False)),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    time, channel = config.blocks[0].mixer, config.blocks[1].mixer
    norm = config.embedding.norm
    assert isinstance(time, TimeMixConfig)
    assert isinstance(channel, ChannelMixConfig)
    assert norm is not None
    return {
        "architectures": ["RwkvForCausalLM"],
        "model_type": "rwkv",
        "hidden_size": config.width,
        "attention_hidden_size": time.width,
        "intermediate_size": channel.width,
        "num_hidden_layers": len(config.blocks) // 2,
        "layer_norm_epsilon": norm.epsilon,
        "vocab_size": config.vocabulary,
        "context_length": config.context,
        "tie_word_embeddings": config.head.tied,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    yield from renamed(STEM | ({} if config.head.tied else HEAD), 1)
    for layer in range(len(config.blocks) // 2):
        for block, names, shares in (
            (2 * layer, TIME, TIME_SHARES),
            (2 * layer + 1, CHANNEL, CHANNEL_SHARES),
        ):
            for theirs, ours in (names | shares).items():
                rule = Translation((f"rwkv.blocks.{layer}.{theirs}",), (f"blocks.{block}.{ours}",))
                yield _flattened(rule) if theirs in shares else rule


def _flattened(rule: Translation) -> Translation:
    """Their shares stand as (1, 1, D)."""
    return Translation(
        rule.theirs,
        rule.ours,
        lambda ts: [t.flatten() for t in ts],
        lambda ts: [t[None, None] for t in ts],
    )
