"""The metadata of GGUF files, from what a config is made of, and tensors worked out from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from limner.kernels import Activation
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import attention_of, change_mixers, write_window
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.mixture import MixtureConfig
from limner.nn.rotary import (
    Linear,
    Llama3,
    LongRope,
    RotaryConfig,
    YaRN,
    magnitude,
    plain_frequencies,
)


@dataclass(frozen=True)
class GGUFHeader:
    """What a GGUF file says besides the parameters.

    Whole numbers are stored as uint32, others as float32.
    """

    metadata: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)


def header_of(
    config: DecoderConfig, architecture: str, activations: Collection[Activation], **more: Any
) -> GGUFHeader:
    """The header of a decoder's file; `more` are keys of the architecture, dots as `__`.

    `activations` are those that the architecture can mean. Raises ValueError for what llama.cpp has
    no words for.
    """
    _refuse_other_activations(config, activations)
    attention = attention_of(config.blocks[0])
    values = {
        "context_length": config.context,
        "embedding_length": config.width,
        "block_count": len(config.blocks),
        "vocab_size": config.vocabulary,
        "attention.head_count": attention.heads,
        "attention.head_count_kv": attention.key_value_heads,
        "attention.key_length": attention.head_width,
        "attention.value_length": attention.head_width,
        **_norm_values(config),
        **_feedforward_values(config),
        **_cap_values(config),
        **({} if attention.rotary is None else _rotary_values(attention.rotary)),
    }
    values |= {name.replace("__", "."): value for name, value in more.items()}
    metadata = {f"{architecture}.{name}": value for name, value in values.items()}
    tensors = {} if attention.rotary is None else _rotary_tensors(attention.rotary)
    return GGUFHeader({"general.architecture": architecture} | metadata, tensors)


def within_window(config: DecoderConfig) -> DecoderConfig:
    """The config without sliding layers, its context ending where they would begin to matter.

    For architectures in which llama.cpp does not slide, up to there the same.
    """
    context = min(config.context, write_window(config) or config.context)
    whole = change_mixers(config, lambda mixer, _: replace(mixer, window=None))
    return replace(whole, context=context)


def _refuse_other_activations(config: DecoderConfig, activations: Collection[Activation]) -> None:
    for block in config.blocks:
        feed = block.feedforward
        assert isinstance(feed, FeedForwardConfig | MixtureConfig)
        if feed.activation not in activations:
            raise ValueError(
                f"the feed-forward bends by '{feed.activation}' but llama.cpp would take "
                f"'{next(iter(activations))}': this model has no GGUF form"
            )


def _norm_values(config: DecoderConfig) -> dict[str, Any]:
    norm = config.norm
    assert norm is not None
    name = "layer_norm_rms_epsilon" if norm.kind == "rms" else "layer_norm_epsilon"
    return {f"attention.{name}": norm.epsilon}


def _feedforward_values(config: DecoderConfig) -> dict[str, Any]:
    feeds = [block.feedforward for block in config.blocks]
    mixtures = [feed for feed in feeds if isinstance(feed, MixtureConfig)]
    if not mixtures:
        assert isinstance(feeds[0], FeedForwardConfig)
        return {"feed_forward_length": feeds[0].width}
    if len(mixtures) < len(feeds):
        raise ValueError(
            f"{len(feeds) - len(mixtures)} of {len(feeds)} layers have no experts: "
            "a GGUF file of this architecture has them in all or none"
        )
    return {
        "feed_forward_length": mixtures[0].width,
        "expert_feed_forward_length": mixtures[0].width,
        "expert_count": mixtures[0].router.experts,
        "expert_used_count": mixtures[0].router.chosen,
    }


def _cap_values(config: DecoderConfig) -> dict[str, Any]:
    attention, window = attention_of(config.blocks[0]), write_window(config)
    values = {
        "attn_logit_softcapping": attention.softcap,
        "final_logit_softcapping": config.head.softcap,
        "attention.sliding_window": window,
    }
    return {name: value for name, value in values.items() if value is not None}


def _rotary_values(rotary: RotaryConfig) -> dict[str, Any]:
    values = {"rope.dimension_count": rotary.width, "rope.freq_base": rotary.theta}
    match rotary.scaling:
        case None | Llama3():
            return values
        case Linear(factor):
            return values | {"rope.scaling.type": "linear", "rope.scaling.factor": factor}
        case YaRN(factor, context, fast, slow, gain, truncate=True):
            return values | {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": factor,
                "rope.scaling.original_context_length": context,
                "rope.scaling.yarn_beta_fast": fast,
                "rope.scaling.yarn_beta_slow": slow,
                # llama.cpp multiplies by what the paper says besides.
                "rope.scaling.attn_factor": gain / magnitude(factor),
            }
        case LongRope(context=context, gain=gain):
            return values | {
                "rope.scaling.original_context_length": context,
                "rope.scaling.attn_factor": gain,
            }
    raise ValueError(f"a GGUF file cannot say {rotary.scaling}: use another way of stretching")


def _rotary_tensors(rotary: RotaryConfig) -> dict[str, Tensor]:
    match rotary.scaling:
        case Llama3():
            plain = plain_frequencies(rotary.theta, rotary.width)
            return {"rope_freqs.weight": plain / rotary.scaling.frequencies(rotary, _no_length)}
        case LongRope(short, long):
            return {
                "rope_factors_short.weight": torch.tensor(short),
                "rope_factors_long.weight": torch.tensor(long),
            }
    return {}


def _no_length() -> Tensor:
    raise AssertionError("Llama 3's stretching does not depend on the text's length")
