"""CLIP: texts and images in one space (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.contrastive import ContrastiveConfig
from limner.models.encoder import EncoderConfig
from limner.models.families.encoder_words import both
from limner.models.families.fields import read_activation, write_activation
from limner.models.translation import Translation, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.fronts import PatchesConfig
from limner.nn.norms import NormConfig

#: What config.json files leave out because it is so in the first published models.
TEXT: dict[str, Any] = {
    "vocab_size": 49_408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49_407,
}
IMAGE: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
BOTH: dict[str, Any] = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
#: An end token of 2 was a mistake in old files: there the token with the highest number ends texts.
WRONG_END = 2
LAYER = {
    "self_attn.q_proj": "mixer.query",
    "self_attn.k_proj": "mixer.key",
    "self_attn.v_proj": "mixer.value",
    "self_attn.out_proj": "mixer.output",
    "layer_norm1": "mix.before",
    "layer_norm2": "feed.before",
    "mlp.fc1": "feedforward.up",
    "mlp.fc2": "feedforward.down",
}


def read_config(fields: Mapping[str, Any]) -> ContrastiveConfig:
    """Our config from the fields of a config.json."""
    text = BOTH | TEXT | dict(fields.get("text_config") or {})
    end = text["eos_token_id"]
    return ContrastiveConfig(
        family="clip",
        text=_read_text(text),
        image=read_image(fields.get("vision_config") or {}),
        projection=fields.get("projection_dim", 512),
        end=None if end == WRONG_END else end,
    )


def _read_text(fields: Mapping[str, Any]) -> EncoderConfig:
    norm, context = NormConfig("layer", fields["layer_norm_eps"]), fields["max_position_embeddings"]
    return EncoderConfig(
        family="clip",
        width=fields["hidden_size"],
        context=context,
        embedding=EmbeddingConfig(fields["vocab_size"], learned_positions=context),
        blocks=(read_block(fields, norm, causal=True),) * fields["num_hidden_layers"],
        norm=norm,
    )


def read_image(fields: Mapping[str, Any]) -> EncoderConfig:
    """The tower of images from the fields of a vision_config."""
    fields = BOTH | IMAGE | dict(fields)
    norm = NormConfig("layer", fields["layer_norm_eps"])
    channels = fields.get("num_channels", 3)
    front = PatchesConfig(fields["image_size"], fields["patch_size"], channels, bias=False)
    return EncoderConfig(
        family="clip",
        width=fields["hidden_size"],
        context=front.places,
        embedding=EmbeddingConfig(0, learned_positions=front.places, norm=norm),
        blocks=(read_block(fields, norm, causal=False),) * fields["num_hidden_layers"],
        norm=norm,
        front=front,
    )


def read_block(
    fields: Mapping[str, Any], norm: NormConfig, causal: bool, bias: bool = True
) -> BlockConfig:
    """A layer that normalises first; `bias` is that of queries, keys and values."""
    heads = fields["num_attention_heads"]
    return BlockConfig(
        mixer=AttentionConfig(
            heads=heads,
            key_value_heads=heads,
            head_width=fields["hidden_size"] // heads,
            causal=causal,
            query_bias=bias,
            key_bias=bias,
            value_bias=bias,
            output_bias=True,
        ),
        mix=ResidualConfig(before=norm),
        feedforward=FeedForwardConfig(
            fields["intermediate_size"],
            read_activation(fields["hidden_act"]),
            gated=False,
            bias=True,
        ),
        feed=ResidualConfig(before=norm),
    )


def write_config(config: ContrastiveConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    text = write_blocks(config.text) | {
        "model_type": "clip_text_model",
        "vocab_size": config.text.vocabulary,
        "max_position_embeddings": config.text.context,
        "eos_token_id": WRONG_END if config.end is None else config.end,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.projection,
        "text_config": text,
        "vision_config": write_image(config.image),
    }


def write_image(config: EncoderConfig) -> dict[str, Any]:
    """The fields of a vision_config."""
    return write_blocks(config) | write_patches(config) | {"model_type": "clip_vision_model"}


def write_patches(config: EncoderConfig) -> dict[str, Any]:
    """The fields of images and their patches."""
    front = config.front
    assert isinstance(front, PatchesConfig)
    return {
        "image_size": front.image,
        "patch_size": front.patch,
        "num_channels": front.channels,
    }


def write_blocks(config: EncoderConfig) -> dict[str, Any]:
    """The fields of a tower's layers."""
    attention, feedforward = config.blocks[0].mixer, config.blocks[0].feedforward
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert config.norm is not None
    return {
        "hidden_size": config.width,
        "intermediate_size": feedforward.width,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": attention.heads,
        "hidden_act": write_activation(feedforward.activation),
        "layer_norm_eps": config.norm.epsilon,
    }


def translations(config: ContrastiveConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    names = {
        "logit_scale": "scale",
        "text_projection.weight": "text_projection.weight",
        "visual_projection.weight": "image_projection.weight",
        "text_model.embeddings.token_embedding.weight": "text.embedding.tokens.weight",
        "text_model.embeddings.position_embedding.weight": "text.embedding.positions.weight",
    }
    names |= both("text_model.final_layer_norm", "text.norm")
    names |= layer_names("text_model", "text")
    yield from renamed(names, len(config.text.blocks))
    yield from renamed(image_names("vision_model", "image"), len(config.image.blocks))


def image_names(theirs: str, ours: str) -> dict[str, str]:
    """The tensors of a tower of images."""
    names = {
        f"{theirs}.embeddings.class_embedding": f"{ours}.front.class_token",
        f"{theirs}.embeddings.patch_embedding.weight": f"{ours}.front.project.weight",
        f"{theirs}.embeddings.position_embedding.weight": f"{ours}.embedding.positions.weight",
    }
    names |= both(f"{theirs}.pre_layrnorm", f"{ours}.embedding.norm")
    names |= both(f"{theirs}.post_layernorm", f"{ours}.norm")
    return names | layer_names(theirs, ours)


def layer_names(theirs: str, ours: str) -> dict[str, str]:
    """The tensors of a tower's layers."""
    names: dict[str, str] = {}
    for their, our in LAYER.items():
        names |= both(f"{theirs}.encoder.layers.{{}}.{their}", f"{ours}.blocks.{{}}.{our}")
    return names
