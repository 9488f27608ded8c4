"""Mamba-2 (Dao and Gu 2024)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import read_activation, write_activation
from limner.models.families.mamba import (
    BIAS,
    CONTEXT,
    CONVOLUTION_BIAS,
    HEAD,
    STEM,
    write_expansion,
)
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.embedding import EmbeddingConfig
from limner.nn.mamba2 import Mamba2Config
from limner.nn.norms import NormConfig

OWN = {
    "backbone.layers.{}.mixer.dt_bias": "blocks.{}.mixer.step_bias",
    "backbone.layers.{}.mixer.norm.weight": "blocks.{}.mixer.gain",
}
PREFIX = "backbone."


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    epsilon = fields.get("layer_norm_epsilon", 1e-5)
    norm = NormConfig("rms", epsilon)
    mixer = Mamba2Config(
        heads=fields.get("num_heads", 128),
        head_width=fields.get("head_dim", 64),
        states=fields.get("state_size", 128),
        groups=fields.get("n_groups", 8),
        taps=fields.get("conv_kernel", 4),
        bias=fields.get("use_bias", False),
        convolution_bias=fields.get("use_conv_bias", True),
        activation=read_activation(fields.get("hidden_act", "silu")),
        step_limit=_read_limit(fields.get("time_step_limit")),
        epsilon=epsilon,
    )
    return DecoderConfig(
        family="mamba2",
        width=fields["hidden_size"],
        context=CONTEXT,
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=(BlockConfig(mixer, ResidualConfig(before=norm)),) * fields["num_hidden_layers"],
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", False)),
    )


def _read_limit(limit: Any) -> tuple[float, float]:
    """Bounds of the steps; infinity is no JSON, and files write it in several ways."""
    if limit is None:
        return 0.0, math.inf
    low, high = (
        float(bound["__float__"]) if isinstance(bound, Mapping) else float(bound) for bound in limit
    )
    return low, high


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    mixer, norm = config.blocks[0].mixer, config.norm
    assert isinstance(mixer, Mamba2Config)
    assert norm is not None
    unbounded = mixer.step_limit == (0.0, math.inf)
    return {
        "architectures": ["Mamba2ForCausalLM"],
        "model_type": "mamba2",
        "hidden_size": config.width,
        "expand": write_expansion(mixer.inner_width, config.width),
        "num_heads": mixer.heads,
        "head_dim": mixer.head_width,
        "state_size": mixer.states,
        "n_groups": mixer.groups,
        "conv_kernel": mixer.taps,
        "use_bias": mixer.bias,
        "use_conv_bias": mixer.convolution_bias,
        "hidden_act": write_activation(mixer.activation),
        "num_hidden_layers": len(config.blocks),
        "layer_norm_epsilon": norm.epsilon,
        "vocab_size": config.vocabulary,
        "tie_word_embeddings": config.head.tied,
        **({} if unbounded else {"time_step_limit": list(mixer.step_limit)}),
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    mixer = config.blocks[0].mixer
    assert isinstance(mixer, Mamba2Config)
    names = STEM | OWN
    names |= BIAS if mixer.bias else {}
    names |= CONVOLUTION_BIAS if mixer.convolution_bias else {}
    names |= {} if config.head.tied else HEAD
    return renamed(names, len(config.blocks))
