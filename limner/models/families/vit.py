"""ViT: images as patches (Dosovitskiy et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from limner.models.encoder import EncoderConfig
from limner.models.families.clip import read_block, write_blocks, write_patches
from limner.models.families.encoder_words import both, count_labels, write_labels
from limner.models.families.fields import read_activation
from limner.models.heads import ClassifierConfig, HeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.fronts import PatchesConfig
from limner.nn.norms import NormConfig

PREFIX = "vit."
STEM = {
    "vit.embeddings.patch_embeddings.projection": "front.project",
    "vit.layernorm": "norm",
}
LAYER = {
    "attention.attention.query": "mixer.query",
    "attention.attention.key": "mixer.key",
    "attention.attention.value": "mixer.value",
    "attention.output.dense": "mixer.output",
    "layernorm_before": "mix.before",
    "layernorm_after": "feed.before",
    "intermediate.dense": "feedforward.up",
    "output.dense": "feedforward.down",
}
HEADS = {
    "pooled": {"vit.pooler.dense": "heads.pooled.dense"},
    "sequence": {"classifier": "heads.sequence.output"},
}


def read_config(fields: Mapping[str, Any]) -> EncoderConfig:
    """Our config from the fields of a config.json."""
    fields = {"hidden_act": "gelu"} | dict(fields)
    norm = NormConfig("layer", fields.get("layer_norm_eps", 1e-12))
    channels, bias = fields.get("num_channels", 3), fields.get("qkv_bias", True)
    front = PatchesConfig(fields.get("image_size", 224), fields.get("patch_size", 16), channels)
    block = read_block(fields, norm, causal=False, bias=bias)
    return EncoderConfig(
        family="vit",
        width=fields["hidden_size"],
        context=front.places,
        embedding=EmbeddingConfig(0, learned_positions=front.places),
        blocks=(block,) * fields["num_hidden_layers"],
        heads=_heads(fields),
        norm=norm,
        front=front,
    )


def _heads(fields: Mapping[str, Any]) -> dict[str, HeadConfig]:
    if "ViTForImageClassification" in (fields.get("architectures") or []):
        return {"sequence": ClassifierConfig(count_labels(fields))}
    bend = read_activation(fields.get("pooler_act", "tanh"))
    return {"pooled": ClassifierConfig(None, activation=bend)}


def write_config(config: EncoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    attention = config.blocks[0].mixer
    assert isinstance(attention, AttentionConfig)
    classifies = "sequence" in config.heads
    return (
        write_blocks(config)
        | write_patches(config)
        | write_labels(config)
        | {
            "architectures": ["ViTForImageClassification" if classifies else "ViTModel"],
            "model_type": "vit",
            "qkv_bias": attention.query_bias,
        }
    )


def translations(config: EncoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    attention = config.blocks[0].mixer
    assert isinstance(attention, AttentionConfig)
    yield _without_batch("vit.embeddings.cls_token", "front.class_token", 2)
    yield _without_batch("vit.embeddings.position_embeddings", "embedding.positions.weight", 1)
    modules = STEM | {f"vit.encoder.layer.{{}}.{k}": f"blocks.{{}}.{v}" for k, v in LAYER.items()}
    for head in config.heads:
        modules |= HEADS[head]
    names: dict[str, str] = {}
    for theirs, ours in modules.items():
        names |= both(theirs, ours)
    if not attention.query_bias:
        ends = tuple(f"attention.{part}.bias" for part in ("query", "key", "value"))
        names = {theirs: ours for theirs, ours in names.items() if not theirs.endswith(ends)}
    yield from renamed(names, len(config.blocks))


def _without_batch(theirs: str, ours: str, dimensions: int) -> Translation:
    """A tensor that they keep with `dimensions` leading dimensions of size 1."""

    def load(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return [tensor.flatten(0, dimensions) for tensor in tensors]

    def save(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return [tensor[(None,) * dimensions] for tensor in tensors]

    return Translation((theirs,), (ours,), load, save)
