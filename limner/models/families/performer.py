"""Performer language models (Choromanski et al. 2021).

No ecosystem format exists: config.json has our own fields, and tensors our own names. The random
features are saved with the weights, which were trained for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import read_activation, write_activation
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig
from limner.nn.performer import PerformerConfig
from limner.nn.rotary import RotaryConfig

STEM = {
    "embedding.tokens.weight": "embedding.tokens.weight",
    "blocks.{}.mixer.features": "blocks.{}.mixer.features",
    "norm.weight": "norm.weight",
    "norm.bias": "norm.bias",
}
POSITIONS = {"embedding.positions.weight": "embedding.positions.weight"}
MODULES = ("mixer.query", "mixer.key", "mixer.value", "mixer.output")
BIASED = ("mix.before", "feed.before", "feedforward.up", "feedforward.down")
HEAD = {"head.weight": "head.output.weight"}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    head_width = fields.get("head_dim") or width // heads
    context = fields.get("context", 1024)
    theta = fields.get("rope_theta")
    norm = NormConfig("layer", fields.get("layer_norm_epsilon", 1e-5))
    mixer = PerformerConfig(
        heads=heads,
        head_width=head_width,
        features=fields["features"],
        bias=fields.get("attention_bias", False),
        rotary=None if theta is None else RotaryConfig(head_width, theta),
    )
    activation = read_activation(fields.get("hidden_act", "gelu"))
    inner = fields.get("intermediate_size") or 4 * width
    feedforward = FeedForwardConfig(inner, activation, gated=False, bias=True)
    residual = ResidualConfig(before=norm)
    return DecoderConfig(
        family="limner_performer",
        width=width,
        context=context,
        embedding=EmbeddingConfig(
            fields["vocab_size"], learned_positions=context if theta is None else 0
        ),
        blocks=(BlockConfig(mixer, residual, feedforward, residual),) * fields["num_hidden_layers"],
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", True)),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block, norm = config.blocks[0], config.norm
    mixer, feedforward = block.mixer, block.feedforward
    assert isinstance(mixer, PerformerConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert norm is not None
    return {
        "model_type": "limner_performer",
        "hidden_size": config.width,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": mixer.heads,
        "head_dim": mixer.head_width,
        "features": mixer.features,
        "attention_bias": mixer.bias,
        "rope_theta": mixer.rotary.theta if mixer.rotary else None,
        "intermediate_size": feedforward.width,
        "hidden_act": write_activation(feedforward.activation),
        "layer_norm_epsilon": norm.epsilon,
        "vocab_size": config.vocabulary,
        "context": config.context,
        "tie_word_embeddings": config.head.tied,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    mixer = config.blocks[0].mixer
    assert isinstance(mixer, PerformerConfig)
    biased = BIASED + (MODULES if mixer.bias else ())
    own = [f"blocks.{{}}.{module}.weight" for module in MODULES + BIASED]
    own += [f"blocks.{{}}.{module}.bias" for module in biased]
    names = STEM | {name: name for name in own}
    names |= POSITIONS if config.embedding.learned_positions else {}
    names |= {} if config.head.tied else HEAD
    return renamed(names, len(config.blocks))
