"""What config.json files of several families say alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from limner.kernels import Activation
from limner.models.block import BlockConfig
from limner.models.decoder import DecoderConfig
from limner.nn.attention import AttentionConfig
from limner.nn.rotary import (
    DynamicNTK,
    Linear,
    Llama3,
    LongRope,
    RotaryConfig,
    Scaling,
    YaRN,
    magnitude,
)

#: Their names of activations; the first of each of ours is the one written.
ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu_squared",
    "tanh": "tanh",
}


def read_activation(name: str) -> Activation:
    """Our activation of their name; ValueError names the known ones."""
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation '{name}': known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def write_activation(activation: Activation) -> str:
    """Their first name of our activation."""
    return next(name for name, ours in ACTIVATIONS.items() if ours == activation)


def read_rotary(
    fields: Mapping[str, Any], head_width: int, interleaved: bool = False
) -> RotaryConfig:
    """Rotary settings of transformers 4 (`rope_theta`, `rope_scaling`) or 5 (`rope_parameters`)."""
    scaling = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    theta = scaling.get("rope_theta") or fields.get("rope_theta") or 10_000.0
    share = scaling.get("partial_rotary_factor") or fields.get("partial_rotary_factor") or 1.0
    width = int(head_width * share)
    return RotaryConfig(width, float(theta), interleaved, read_scaling(scaling, fields))


def read_scaling(scaling: Mapping[str, Any], fields: Mapping[str, Any]) -> Scaling | None:
    """The way of stretching; ValueError names an unknown one."""
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    context = fields.get("max_position_embeddings", 2048)
    trained = scaling.get("original_max_position_embeddings") or context
    if kind == "default":
        return None
    if kind == "linear":
        return Linear(scaling["factor"])
    if kind == "dynamic":
        return DynamicNTK(scaling["factor"], trained)
    if kind == "llama3":
        slow, fast = scaling["low_freq_factor"], scaling["high_freq_factor"]
        return Llama3(scaling["factor"], slow, fast, trained)
    if kind == "yarn":
        return _read_yarn(scaling, trained, context)
    if kind == "longrope":
        return _read_longrope(scaling, fields, context)
    known = "default, linear, dynamic, llama3, yarn, longrope"
    raise ValueError(f"unknown rope_type '{kind}': known are {known}")


def _read_yarn(scaling: Mapping[str, Any], trained: int, context: int) -> YaRN:
    factor = scaling.get("factor") or context / trained
    gain = scaling.get("attention_factor")
    if gain is None:
        gain = magnitude(factor)
        if scaling.get("mscale") and scaling.get("mscale_all_dim"):
            gain = magnitude(factor, scaling["mscale"])
            gain /= magnitude(factor, scaling["mscale_all_dim"])
    fast, slow = scaling.get("beta_fast") or 32.0, scaling.get("beta_slow") or 1.0
    return YaRN(factor, trained, fast, slow, gain, scaling.get("truncate", True))


def _read_longrope(scaling: Mapping[str, Any], fields: Mapping[str, Any], context: int) -> LongRope:
    trained = (
        scaling.get("original_max_position_embeddings")
        or fields.get("original_max_position_embeddings")
        or context
    )
    factor = scaling.get("factor") or context / trained
    gain = scaling.get("attention_factor")
    if gain is None:
        gain = math.sqrt(1 + math.log(factor) / math.log(trained)) if factor > 1 else 1.0
    return LongRope(tuple(scaling["short_factor"]), tuple(scaling["long_factor"]), trained, gain)


def write_rotary(rotary: RotaryConfig | None, head_width: int) -> dict[str, Any]:
    """The fields that transformers 4 and 5 both read."""
    if rotary is None:
        return {}
    fields: dict[str, Any] = {
        "rope_theta": rotary.theta,
        "rope_scaling": write_scaling(rotary.scaling),
    }
    if rotary.width != head_width:
        fields["partial_rotary_factor"] = rotary_share(rotary.width, head_width)
    return fields


def rotary_share(width: int, head_width: int) -> float:
    """The share of a head that turns, which multiplied and cut to a whole number is `width`."""
    share = width / head_width
    return share if int(head_width * share) == width else math.nextafter(share, math.inf)


def write_scaling(scaling: Scaling | None) -> dict[str, Any] | None:
    """The `rope_scaling` of a way of stretching."""
    match scaling:
        case None:
            return None
        case Linear(factor):
            return {"rope_type": "linear", "factor": factor}
        case DynamicNTK(factor, context):
            return _scaled("dynamic", context, factor=factor)
        case Llama3(factor, low, high, context):
            return _scaled(
                "llama3", context, factor=factor, low_freq_factor=low, high_freq_factor=high
            )
        case YaRN(factor, context, fast, slow, gain, truncate):
            return _scaled(
                "yarn",
                context,
                factor=factor,
                beta_fast=fast,
                beta_slow=slow,
                attention_factor=gain,
                truncate=truncate,
            )
        case LongRope(short, long, context, gain):
            return _scaled(
                "longrope",
                context,
                short_factor=list(short),
                long_factor=list(long),
                attention_factor=gain,
            )


def _scaled(kind: str, context: int, **fields: Any) -> dict[str, Any]:
    return {"rope_type": kind, "original_max_position_embeddings": context, **fields}


def change_mixers(
    config: DecoderConfig, change: Callable[[AttentionConfig, int], AttentionConfig]
) -> DecoderConfig:
    """The config with the attention of each layer changed by its number."""

    def changed(block: BlockConfig, layer: int) -> BlockConfig:
        assert isinstance(block.mixer, AttentionConfig)
        return replace(block, mixer=change(block.mixer, layer))

    blocks = tuple(changed(block, layer) for layer, block in enumerate(config.blocks))
    return replace(config, blocks=blocks)


def read_layer_types(fields: Mapping[str, Any], sliding: Callable[[int], bool]) -> list[bool]:
    """Which layers slide: as `layer_types` says, or else `sliding` of the layer's number."""
    layers = fields["num_hidden_layers"]
    named = fields.get("layer_types")
    if named is None:
        return [sliding(layer) for layer in range(layers)]
    if len(named) != layers:
        raise ValueError(f"layer_types names {len(named)} layers but there are {layers}")
    return [kind == "sliding_attention" for kind in named]


def write_layer_types(config: DecoderConfig) -> list[str]:
    """The `layer_types` of a config."""
    kinds = {True: "sliding_attention", False: "full_attention"}
    return [kinds[attention_of(block).window is not None] for block in config.blocks]


def attention_of(block: BlockConfig) -> AttentionConfig:
    """The block's mixer, in families where it is attention."""
    assert isinstance(block.mixer, AttentionConfig)
    return block.mixer


def write_window(config: DecoderConfig) -> int | None:
    """The window of the layers that slide; None if none does."""
    windows = [attention_of(block).window for block in config.blocks]
    return next((window for window in windows if window is not None), None)


def change_blocks(
    config: DecoderConfig, change: Callable[[BlockConfig], BlockConfig]
) -> DecoderConfig:
    """The config with every layer changed alike."""
    return replace(config, blocks=tuple(change(block) for block in config.blocks))
