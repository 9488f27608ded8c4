"""What families of encoders say alike: BERT's shape, each in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.encoder import EncoderConfig
from limner.models.families.fields import read_activation, write_activation
from limner.models.heads import ClassifierConfig, HeadConfig, LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

#: Our names of a config's sizes, and the words of most families for them.
WORDS = {
    "width": "hidden_size",
    "inner": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "activation": "hidden_act",
    "types": "type_vocab_size",
    "epsilon": "layer_norm_eps",
}


@dataclass(frozen=True)
class EncoderWords:
    """A family of encoders in its own words.

    `modules` pairs their modules with ours; `tables` the same for bare tensors. `architectures`
    lists the heads of each class of theirs, `heads` the modules of each head, and `vocabulary_bias`
    and `vocabulary_weight` where the masked head keeps what is its own. `bends` are the activations
    of heads (None: the model's). `unused_positions` stand first in the table of positions.
    `factorised` allows narrow token vectors. `token_types` False has no vectors for sentences.
    """

    family: str
    modules: Mapping[str, str]
    tables: Mapping[str, str]
    architectures: Mapping[str, tuple[str, ...]]
    heads: Mapping[str, Mapping[str, str]]
    bends: Mapping[str, str | None]
    vocabulary_bias: str
    vocabulary_weight: str
    words: Mapping[str, str] = field(default_factory=dict)
    unused_positions: int = 0
    factorised: bool = False
    token_types: bool = True
    epsilon: float = 1e-12

    def word(self, name: str) -> str:
        """Their word for one of our sizes."""
        return self.words.get(name, WORDS[name])

    def read_config(self, fields: Mapping[str, Any]) -> EncoderConfig:
        """Our config from the fields of a config.json."""
        width, places = fields[self.word("width")], fields["max_position_embeddings"]
        norm = NormConfig("layer", fields.get(self.word("epsilon"), self.epsilon))
        inner = fields.get("embedding_size", width) if self.factorised else width
        embedding = EmbeddingConfig(
            fields["vocab_size"],
            learned_positions=places,
            first_position=self.unused_positions,
            token_types=fields.get(self.word("types"), 2) if self.token_types else 0,
            norm=norm,
            width=None if inner == width else inner,
        )
        return EncoderConfig(
            family=self.family,
            width=width,
            context=places - self.unused_positions,
            embedding=embedding,
            blocks=(self.block(fields, norm),) * fields[self.word("layers")],
            heads=self.read_heads(fields, norm),
        )

    def block(self, fields: Mapping[str, Any], norm: NormConfig) -> BlockConfig:
        """A layer that normalises after each sum, as the first transformer did."""
        width, heads = fields[self.word("width")], fields[self.word("heads")]
        activation = read_activation(fields.get(self.word("activation"), "gelu"))
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
                fields[self.word("inner")], activation, gated=False, bias=True
            ),
            feed=ResidualConfig(after=norm),
        )

    def read_heads(self, fields: Mapping[str, Any], norm: NormConfig) -> dict[str, HeadConfig]:
        """The heads of the architecture that config.json names; ValueError if it is unknown.

        An empty list, as is written for an encoder alone, names none.
        """
        if fields.get("architectures") == []:
            return {}
        name = (fields.get("architectures") or [next(iter(self.architectures))])[0]
        if name not in self.architectures:
            known = ", ".join(self.architectures)
            raise ValueError(f"unknown {self.family} architecture '{name}': known are {known}")
        return {head: self.head(head, fields, norm) for head in self.architectures[name]}

    def head(self, name: str, fields: Mapping[str, Any], norm: NormConfig) -> HeadConfig:
        """The settings of one head."""
        own = fields.get(self.word("activation"), "gelu")
        bend = read_activation(self.bends.get(name) or own)
        if name == "masked":
            tied = fields.get("tie_word_embeddings", True)
            return LanguageHeadConfig(tied, bias=True, activation=bend, norm=norm)
        labels = {"sequence": count_labels(fields), "tokens": count_labels(fields)}
        labels |= {"next_sentence": 2, "span": 2, "choice": 1, "replaced": 1}
        each = name in ("tokens", "span", "replaced")
        dense = "dense" in self.heads[name].values()
        return ClassifierConfig(
            labels.get(name), "each" if each else "first", bend if dense else None
        )

    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        """The fields of a config.json."""
        attention, feedforward = config.blocks[0].mixer, config.blocks[0].feedforward
        norm, masked = config.embedding.norm, config.heads.get("masked")
        assert isinstance(attention, AttentionConfig)
        assert isinstance(feedforward, FeedForwardConfig)
        assert norm is not None
        heads = tuple(config.heads)
        fields = {
            "architectures": [n for n, kinds in self.architectures.items() if kinds == heads][:1],
            "model_type": self.family,
            self.word("width"): config.width,
            self.word("layers"): len(config.order or config.blocks),
            self.word("heads"): attention.heads,
            self.word("inner"): feedforward.width,
            self.word("activation"): write_activation(feedforward.activation),
            self.word("epsilon"): norm.epsilon,
            "vocab_size": config.vocabulary,
            "max_position_embeddings": config.embedding.learned_positions,
            "tie_word_embeddings": not isinstance(masked, LanguageHeadConfig) or masked.tied,
        }
        if self.token_types:
            fields[self.word("types")] = config.embedding.token_types
        if self.factorised:
            fields["embedding_size"] = config.embedding.width or config.width
        return fields | write_labels(config)

    def translations(self, config: EncoderConfig) -> Iterator[Translation]:
        """Every tensor of a checkpoint and the parameters it makes."""
        tables, modules = dict(self.tables), dict(self.modules)
        if not config.embedding.width:
            modules = {k: v for k, v in modules.items() if v != "embedding.project"}
        for head in config.heads:
            modules |= {their: f"heads.{head}.{our}" for their, our in self.heads[head].items()}
        masked = config.heads.get("masked")
        if isinstance(masked, LanguageHeadConfig):
            tables[self.vocabulary_bias] = "heads.masked.output.bias"
            if not masked.tied:
                tables[self.vocabulary_weight] = "heads.masked.output.weight"
        for their, our in modules.items():
            tables |= both(their, our)
        return renamed(tables, len(config.blocks))


def count_labels(fields: Mapping[str, Any]) -> int:
    """How many labels a classifier has; transformers writes them as a table or a number."""
    table = fields.get("id2label")
    return len(table) if table else int(fields.get("num_labels", 2))


def write_labels(config: EncoderConfig | DecoderConfig) -> dict[str, Any]:
    """The table of labels, where a head has them."""
    for head in config.heads.values():
        if isinstance(head, ClassifierConfig) and head.labels:
            return {"id2label": {str(label): f"LABEL_{label}" for label in range(head.labels)}}
    return {}


def both(theirs: str, ours: str) -> dict[str, str]:
    """The names of a module's weight and bias."""
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}
