"""The fixed-window neural language model (Bengio et al. 2003).

No ecosystem format exists: config.json has our own fields. Tensors are named after the layers of
the paper: word vectors, a hidden layer over the window, an output over the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.embedding import EmbeddingConfig
from limner.nn.fixed_window import FixedWindowConfig

NAMES = {
    "embedding.weight": "embedding.tokens.weight",
    "hidden.weight": "blocks.0.mixer.hidden.weight",
    "hidden.bias": "blocks.0.mixer.hidden.bias",
    "output.weight": "blocks.0.mixer.output.weight",
    "head.bias": "head.output.bias",
}
DIRECT = {"direct.weight": "blocks.0.mixer.direct.weight"}
HEAD = {"head.weight": "head.output.weight"}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    mixer = FixedWindowConfig(
        fields["window"], fields["intermediate_size"], fields.get("direct", False)
    )
    return DecoderConfig(
        family="limner_fixed_window",
        width=fields["hidden_size"],
        context=fields.get("context", 1024),
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=(BlockConfig(mixer, ResidualConfig(skip=False)),),
        head=LanguageHeadConfig(tied=fields.get("tie_word_embeddings", False), bias=True),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    mixer = config.blocks[0].mixer
    assert isinstance(mixer, FixedWindowConfig)
    return {
        "model_type": "limner_fixed_window",
        "hidden_size": config.width,
        "window": mixer.tokens,
        "intermediate_size": mixer.hidden_width,
        "direct": mixer.direct,
        "vocab_size": config.vocabulary,
        "context": config.context,
        "tie_word_embeddings": config.head.tied,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    mixer = config.blocks[0].mixer
    assert isinstance(mixer, FixedWindowConfig)
    names = NAMES | (DIRECT if mixer.direct else {}) | ({} if config.head.tied else HEAD)
    return renamed(names, 1)
