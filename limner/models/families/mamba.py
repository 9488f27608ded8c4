"""Mamba (Gu and Dao 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import read_activation, write_activation
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.embedding import EmbeddingConfig
from limner.nn.mamba import MambaConfig
from limner.nn.norms import NormConfig

#: Nothing in the format bounds a text's length; memory does not grow with it.
CONTEXT = 1_048_576

STEM = {
    "backbone.embeddings.weight": "embedding.tokens.weight",
    "backbone.layers.{}.norm.weight": "blocks.{}.mix.before.weight",
    "backbone.layers.{}.mixer.in_proj.weight": "blocks.{}.mixer.input.weight",
    "backbone.layers.{}.mixer.conv1d.weight": "blocks.{}.mixer.convolution",
    "backbone.layers.{}.mixer.A_log": "blocks.{}.mixer.log_rate",
    "backbone.layers.{}.mixer.D": "blocks.{}.mixer.skip",
    "backbone.layers.{}.mixer.out_proj.weight": "blocks.{}.mixer.output.weight",
    "backbone.norm_f.weight": "norm.weight",
}
SELECTION = {
    "backbone.layers.{}.mixer.x_proj.weight": "blocks.{}.mixer.select.weight",
    "backbone.layers.{}.mixer.dt_proj.weight": "blocks.{}.mixer.step",
    "backbone.layers.{}.mixer.dt_proj.bias": "blocks.{}.mixer.step_bias",
}
BIAS = {
    "backbone.layers.{}.mixer.in_proj.bias": "blocks.{}.mixer.input.bias",
    "backbone.layers.{}.mixer.out_proj.bias": "blocks.{}.mixer.output.bias",
}
CONVOLUTION_BIAS = {"backbone.layers.{}.mixer.conv1d.bias": "blocks.{}.mixer.convolution_bias"}
HEAD = {"lm_head.weight": "head.output.weight"}
PREFIX = "backbone."


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    width = fields["hidden_size"]
    norm = NormConfig("rms", fields.get("layer_norm_epsilon", 1e-5))
    rank = fields.get("time_step_rank", "auto")
    mixer = MambaConfig(
        inner_width=int(fields.get("expand", 2) * width),
        states=fields.get("state_size", 16),
        taps=fields.get("conv_kernel", 4),
        rank=math.ceil(width / 16) if rank == "auto" else rank,
        bias=fields.get("use_bias", False),
        convolution_bias=fields.get("use_conv_bias", True),
        activation=read_activation(fields.get("hidden_act", "silu")),
    )
    return DecoderConfig(
        family="mamba",
        width=width,
        context=CONTEXT,
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=(BlockConfig(mixer, ResidualConfig(before=norm)),) * fields["num_hidden_layers"],
        norm=norm,
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", True)),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    mixer, norm = config.blocks[0].mixer, config.norm
    assert isinstance(mixer, MambaConfig)
    assert norm is not None
    return {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        "hidden_size": config.width,
        "intermediate_size": mixer.inner_width,
        "expand": write_expansion(mixer.inner_width, config.width),
        "state_size": mixer.states,
        "conv_kernel": mixer.taps,
        "time_step_rank": mixer.rank,
        "use_bias": mixer.bias,
        "use_conv_bias": mixer.convolution_bias,
        "hidden_act": write_activation(mixer.activation),
        "num_hidden_layers": len(config.blocks),
        "layer_norm_epsilon": norm.epsilon,
        "vocab_size": config.vocabulary,
        "tie_word_embeddings": config.head.tied,
    }


def write_expansion(inner_width: int, width: int) -> int:
    """How many times wider the inner stream is; the format allows whole numbers only."""
    if inner_width % width:
        raise ValueError(
            f"Mamba's format cannot say that {width} numbers become {inner_width}: "
            f"make the inner width a multiple of {width}"
        )
    return inner_width // width


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    mixer = config.blocks[0].mixer
    assert isinstance(mixer, MambaConfig)
    names = STEM | SELECTION
    names |= BIAS if mixer.bias else {}
    names |= CONVOLUTION_BIAS if mixer.convolution_bias else {}
    names |= {} if config.head.tied else HEAD
    return renamed(names, len(config.blocks))
