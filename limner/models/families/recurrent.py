"""LSTM, GRU and plain recurrent language models (Mikolov et al. 2010; Zaremba et al. 2014).

No ecosystem format exists: config.json has our own fields, and tensors are named as in a PyTorch
module of an `embedding`, an `rnn` of several layers and a `head`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.embedding import EmbeddingConfig
from limner.nn.recurrent import RecurrentConfig

EMBEDDING = {"embedding.weight": "embedding.tokens.weight"}
CELL = {
    "rnn.weight_ih_l{}": "blocks.{}.mixer.cell.weight_ih_l0",
    "rnn.weight_hh_l{}": "blocks.{}.mixer.cell.weight_hh_l0",
}
BIAS = {
    "rnn.bias_ih_l{}": "blocks.{}.mixer.cell.bias_ih_l0",
    "rnn.bias_hh_l{}": "blocks.{}.mixer.cell.bias_hh_l0",
}
PROJECTION = {"rnn.weight_hr_l{}": "blocks.{}.mixer.cell.weight_hr_l0"}
OUTPUT = {"output.{}.weight": "blocks.{}.mixer.output.weight"}
HEAD = {"head.weight": "head.output.weight"}
HEAD_BIAS = {"head.bias": "head.output.bias"}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    width = fields["hidden_size"]
    cell_width = fields.get("cell_size") or width
    mixer = RecurrentConfig(
        kind=fields.get("cell", "lstm"),
        cell_width=cell_width if cell_width != width else None,
        projection=fields.get("projection", False),
        bias=fields.get("bias", True),
    )
    block = BlockConfig(mixer, ResidualConfig(skip=fields.get("residual", False)))
    return DecoderConfig(
        family="limner_recurrent",
        width=width,
        context=fields.get("context", 1024),
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=(block,) * fields["num_hidden_layers"],
        head=LanguageHeadConfig(
            tied=fields.get("tie_word_embeddings", False), bias=fields.get("head_bias", True)
        ),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    block = config.blocks[0]
    mixer = block.mixer
    assert isinstance(mixer, RecurrentConfig)
    return {
        "model_type": "limner_recurrent",
        "cell": mixer.kind,
        "hidden_size": config.width,
        "cell_size": mixer.cell_width or config.width,
        "num_hidden_layers": len(config.blocks),
        "projection": mixer.projection,
        "bias": mixer.bias,
        "residual": block.mix.skip,
        "vocab_size": config.vocabulary,
        "context": config.context,
        "tie_word_embeddings": config.head.tied,
        "head_bias": config.head.bias,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    mixer = config.blocks[0].mixer
    assert isinstance(mixer, RecurrentConfig)
    names = EMBEDDING | CELL
    names |= BIAS if mixer.bias else {}
    names |= PROJECTION if mixer.projection else {}
    names |= OUTPUT if mixer.cell_width and not mixer.projection else {}
    names |= {} if config.head.tied else HEAD
    names |= HEAD_BIAS if config.head.bias else {}
    return renamed(names, len(config.blocks))
