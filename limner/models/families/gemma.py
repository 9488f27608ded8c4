"""Gemma (Mesnard et al. 2024): Llama with scaled token vectors and gains stored minus one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import write_activation
from limner.models.families.gguf_fields import GGUFFields, read_llama_fields
from limner.models.families.gguf_header import GGUFHeader, header_of
from limner.models.families.gguf_tensors import tensors_of
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

translations = llama.translations
gguf_translations = tensors_of


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json.

    Raises ValueError for one that looks at later tokens (an encoder made of a Gemma).
    """
    if fields.get("use_bidirectional_attention"):
        raise ValueError(
            "use_bidirectional_attention is true: this Gemma is an encoder, not a language model; "
            "give one that predicts the next token"
        )
    config = llama.read_config(defaults(fields))
    norm = NormConfig("rms", fields.get("rms_norm_eps", 1e-6), unit_offset=True)
    blocks = tuple(
        replace(block, mix=replace(block.mix, before=norm), feed=replace(block.feed, before=norm))
        for block in config.blocks
    )
    embedding = replace(config.embedding, scale=math.sqrt(config.width))
    return replace(config, family="gemma", embedding=embedding, blocks=blocks, norm=norm)


def defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, with what Gemma's files may leave out or call by an old name.

    Early files say "gelu" and mean its tanh form, which the models were trained with.
    """
    activation = fields.get("hidden_activation") or fields.get("hidden_act")
    plain = activation in (None, "gelu")
    return {"head_dim": 256, "tie_word_embeddings": True, "max_position_embeddings": 8192} | {
        **fields,
        "hidden_act": "gelu_pytorch_tanh" if plain else activation,
    }


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    feedforward = config.blocks[0].feedforward
    assert isinstance(feedforward, FeedForwardConfig)
    return llama.write_config(config) | {
        "architectures": ["GemmaForCausalLM"],
        "model_type": "gemma",
        "hidden_activation": write_activation(feedforward.activation),
    }


def read_gguf(file: GGUFFields) -> DecoderConfig:
    """Our config from the metadata of a GGUF file."""
    return read_config(read_llama_fields(file))


def write_gguf(config: DecoderConfig) -> GGUFHeader:
    """The header of a GGUF file; ValueError for a head of its own."""
    refuse_untied(config)
    return header_of(config, "gemma", ["gelu_tanh"])


def refuse_untied(config: DecoderConfig) -> None:
    """ValueError if the head is not the token vectors, as llama.cpp takes for granted."""
    if not config.head.tied:
        raise ValueError(
            "tie_word_embeddings is false but llama.cpp's Gemma has one matrix for both: "
            "this model has no GGUF form"
        )
