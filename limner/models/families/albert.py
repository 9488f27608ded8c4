"""ALBERT (Lan et al. 2019): few blocks that stand at many layers, and narrow token vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.encoder import EncoderConfig
from limner.models.families.bert import tables
from limner.models.families.encoder_words import EncoderWords
from limner.models.translation import Translation

PREFIX = "albert."
LAYER = {
    "attention.query": "mixer.query",
    "attention.key": "mixer.key",
    "attention.value": "mixer.value",
    "attention.dense": "mixer.output",
    "attention.LayerNorm": "mix.after",
    "ffn": "feedforward.up",
    "ffn_output": "feedforward.down",
    "full_layer_layer_norm": "feed.after",
}
POOLER = {"albert.pooler": "dense"}

WORDS = EncoderWords(
    family="albert",
    modules={
        "albert.embeddings.LayerNorm": "embedding.norm",
        "albert.encoder.embedding_hidden_mapping_in": "embedding.project",
    }
    | {
        f"albert.encoder.albert_layer_groups.{{}}.albert_layers.0.{their}": f"blocks.{{}}.{our}"
        for their, our in LAYER.items()
    },
    tables=tables(PREFIX),
    architectures={
        "AlbertModel": ("pooled",),
        "AlbertForMaskedLM": ("masked",),
        "AlbertForPreTraining": ("masked", "next_sentence"),
        "AlbertForSequenceClassification": ("sequence",),
        "AlbertForMultipleChoice": ("choice",),
        "AlbertForTokenClassification": ("tokens",),
        "AlbertForQuestionAnswering": ("span",),
    },
    heads={
        "masked": {"predictions.dense": "dense", "predictions.LayerNorm": "norm"},
        "next_sentence": POOLER | {"sop_classifier.classifier": "output"},
        "pooled": POOLER,
        "sequence": POOLER | {"classifier": "output"},
        "choice": POOLER | {"classifier": "output"},
        "tokens": {"classifier": "output"},
        "span": {"qa_outputs": "output"},
    },
    bends={"next_sentence": "tanh", "pooled": "tanh", "sequence": "tanh", "choice": "tanh"},
    vocabulary_bias="predictions.bias",
    vocabulary_weight="predictions.decoder.weight",
    factorised=True,
)


def read_config(fields: Mapping[str, Any]) -> EncoderConfig:
    """Our config from the fields of a config.json."""
    config = WORDS.read_config(fields)
    if fields.get("inner_group_num", 1) != 1:
        number = fields["inner_group_num"]
        raise ValueError(f"inner_group_num {number} is not known: published ALBERTs have 1")
    layers, groups = len(config.blocks), fields.get("num_hidden_groups", 1)
    order = tuple(layer * groups // layers for layer in range(layers))
    return replace(config, blocks=config.blocks[:groups], order=order)


def write_config(config: EncoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    return WORDS.write_config(config) | {"num_hidden_groups": len(config.blocks)}


def translations(config: EncoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    return WORDS.translations(config)
