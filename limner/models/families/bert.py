"""BERT (Devlin et al. 2018), and encoders of its shape such as MiniLM (Wang et al. 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.encoder import EncoderConfig
from limner.models.families.fields import read_activation, write_activation
from limner.models.heads import ClassifierConfig, HeadConfig, LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

PREFIX = "bert."
EMBEDDING = {
    "bert.embeddings.word_embeddings.weight": "embedding.tokens.weight",
    "bert.embeddings.position_embeddings.weight": "embedding.positions.weight",
    "bert.embeddings.token_type_embeddings.weight": "embedding.types.weight",
    "bert.embeddings.LayerNorm.weight": "embedding.norm.weight",
    "bert.embeddings.LayerNorm.bias": "embedding.norm.bias",
}
LAYER = {
    "attention.self.query": "mixer.query",
    "attention.self.key": "mixer.key",
    "attention.self.value": "mixer.value",
    "attention.output.dense": "mixer.output",
    "attention.output.LayerNorm": "mix.after",
    "intermediate.dense": "feedforward.up",
    "output.dense": "feedforward.down",
    "output.LayerNorm": "feed.after",
}
POOLER = {"bert.pooler.dense": "dense"}
#: Their modules of each head, and ours within it.
HEADS: dict[str, dict[str, str]] = {
    "masked": {
        "cls.predictions.transform.dense": "dense",
        "cls.predictions.transform.LayerNorm": "norm",
    },
    "next_sentence": POOLER | {"cls.seq_relationship": "output"},
    "pooled": POOLER,
    "sequence": POOLER | {"classifier": "output"},
    "choice": POOLER | {"classifier": "output"},
    "tokens": {"classifier": "output"},
    "span": {"qa_outputs": "output"},
}
ARCHITECTURES: dict[str, tuple[str, ...]] = {
    "BertModel": ("pooled",),
    "BertForMaskedLM": ("masked",),
    "BertForNextSentencePrediction": ("next_sentence",),
    "BertForPreTraining": ("masked", "next_sentence"),
    "BertForSequenceClassification": ("sequence",),
    "BertForMultipleChoice": ("choice",),
    "BertForTokenClassification": ("tokens",),
    "BertForQuestionAnswering": ("span",),
}


def read_config(fields: Mapping[str, Any]) -> EncoderConfig:
    """Our config from the fields of a config.json."""
    width, context = fields["hidden_size"], fields["max_position_embeddings"]
    norm = NormConfig("layer", fields.get("layer_norm_eps", 1e-12))
    return EncoderConfig(
        family="bert",
        width=width,
        context=context,
        embedding=EmbeddingConfig(
            fields["vocab_size"],
            learned_positions=context,
            token_types=fields.get("type_vocab_size", 2),
            norm=norm,
        ),
        blocks=(post_norm_block(fields, norm),) * fields["num_hidden_layers"],
        heads=read_heads(fields, norm),
    )


def post_norm_block(fields: Mapping[str, Any], norm: NormConfig) -> BlockConfig:
    """A layer that normalises after each sum, as the first transformer did."""
    width, heads = fields["hidden_size"], fields["num_attention_heads"]
    return BlockConfig(
        mixer=AttentionConfig(
            heads=heads,
            key_value_heads=heads,
            head_width=width // heads,
            causal=False,
            query_bias=True,
            key_bias=True,
            value_bias=True,
            output_bias=True,
        ),
        mix=ResidualConfig(after=norm),
        feedforward=FeedForwardConfig(
            fields["intermediate_size"],
            read_activation(fields.get("hidden_act", "gelu")),
            gated=False,
            bias=True,
        ),
        feed=ResidualConfig(after=norm),
    )


def read_heads(fields: Mapping[str, Any], norm: NormConfig) -> dict[str, HeadConfig]:
    """The heads of the architecture that config.json names; ValueError if it is unknown."""
    name = (fields.get("architectures") or ["BertModel"])[0]
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"unknown architecture '{name}' of BERT: known are {known}")
    activation = read_activation(fields.get("hidden_act", "gelu"))
    tied = fields.get("tie_word_embeddings", True)
    labels = count_labels(fields)
    heads: dict[str, HeadConfig] = {
        "masked": LanguageHeadConfig(tied, bias=True, activation=activation, norm=norm),
        "next_sentence": ClassifierConfig(2, activation="tanh"),
        "pooled": ClassifierConfig(None, activation="tanh"),
        "sequence": ClassifierConfig(labels, activation="tanh"),
        "choice": ClassifierConfig(1, activation="tanh"),
        "tokens": ClassifierConfig(labels, of="each"),
        "span": ClassifierConfig(2, of="each"),
    }
    return {head: heads[head] for head in ARCHITECTURES[name]}


def count_labels(fields: Mapping[str, Any]) -> int:
    """How many labels a classifier has; transformers writes them as a table or a number."""
    table = fields.get("id2label")
    return len(table) if table else int(fields.get("num_labels", 2))


def write_config(config: EncoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    attention, feedforward = config.blocks[0].mixer, config.blocks[0].feedforward
    norm, masked = config.embedding.norm, config.heads.get("masked")
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert norm is not None
    heads = tuple(config.heads)
    fields = {
        "architectures": [name for name, kinds in ARCHITECTURES.items() if kinds == heads],
        "model_type": "bert",
        "hidden_size": config.width,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": attention.heads,
        "intermediate_size": feedforward.width,
        "hidden_act": write_activation(feedforward.activation),
        "layer_norm_eps": norm.epsilon,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "type_vocab_size": config.embedding.token_types,
        "tie_word_embeddings": masked.tied if isinstance(masked, LanguageHeadConfig) else True,
    }
    for head in config.heads.values():
        if isinstance(head, ClassifierConfig) and head.labels:
            fields["id2label"] = {str(label): f"LABEL_{label}" for label in range(head.labels)}
    return fields


def translations(config: EncoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    names = dict(EMBEDDING)
    for theirs, ours in LAYER.items():
        names |= both(f"bert.encoder.layer.{{}}.{theirs}", f"blocks.{{}}.{ours}")
    for head in config.heads:
        for theirs, ours in HEADS[head].items():
            names |= both(theirs, f"heads.{head}.{ours}")
    masked = config.heads.get("masked")
    if isinstance(masked, LanguageHeadConfig):
        names["cls.predictions.bias"] = "heads.masked.output.bias"
        if not masked.tied:
            names["cls.predictions.decoder.weight"] = "heads.masked.output.weight"
    return renamed(names, len(config.blocks))


def both(theirs: str, ours: str) -> dict[str, str]:
    """The names of a module's weight and bias."""
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}
