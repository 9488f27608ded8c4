"""One small file a family: it translates configs and tensor names, and decides nothing.

Adding a family is a file here and a line in FAMILIES.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any, Protocol, cast

from limner.models.families.gguf_fields import GGUFFields
from limner.models.families.gguf_header import GGUFHeader
from limner.models.network import NetworkConfig
from limner.models.translation import Translation

#: config.json's `model_type`: the family's file.
FAMILIES = {
    "albert": "albert",
    "bart": "bart",
    "bert": "bert",
    "bloom": "bloom",
    "cohere": "cohere",
    "deberta-v2": "deberta",
    "whisper": "whisper",
    "vit": "vit",
    "clip": "clip",
    "llava": "llava",
    "deepseek_v2": "deepseek_v2",
    "deepseek_v3": "deepseek_v3",
    "distilbert": "distilbert",
    "electra": "electra",
    "falcon": "falcon",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "gptj": "gptj",
    "granite": "granite",
    "limner_fixed_window": "fixed_window",
    "limner_performer": "performer",
    "limner_recurrent": "recurrent",
    "limner_transformer": "transformer",
    "llama": "llama",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "marian": "bart",
    "mbart": "bart",
    "mistral": "mistral",
    "mixtral": "mixtral",
    "mt5": "t5",
    "olmo2": "olmo2",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3_moe",
    "roberta": "roberta",
    "rwkv": "rwkv",
    "smollm3": "smollm3",
    "stablelm": "stablelm",
    "t5": "t5",
}

#: GGUF's `general.architecture`: the family's file.
GGUF_FAMILIES = {
    "bert": "bert",
    "bloom": "bloom",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gpt2": "gpt2",
    "gptneox": "gpt_neox",
    "llama": "llama",
    "phi3": "phi3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "t5": "t5",
}


class Family(Protocol):
    """What a family's file holds; `PREFIX` (optional) is what base-only checkpoints leave out.

    Each family reads and writes configs of its own stack, so only it knows their type.
    """

    def read_config(self, fields: Mapping[str, Any]) -> NetworkConfig:
        """Our config from the fields of a config.json."""
        ...

    def write_config(self, config: Any) -> dict[str, Any]:
        """The fields of a config.json."""
        ...

    def translations(self, config: Any) -> Iterator[Translation]:
        """Every tensor of a checkpoint and the parameters it makes."""
        ...


class GGUFFamily(Protocol):
    """What a family's file holds besides, if llama.cpp knows the family."""

    def read_gguf(self, file: GGUFFields) -> NetworkConfig:
        """Our config from the metadata of a GGUF file."""
        ...

    def write_gguf(self, config: Any) -> GGUFHeader:
        """The header of a GGUF file; ValueError for what llama.cpp would do otherwise."""
        ...

    def gguf_translations(self, config: Any) -> Iterator[Translation]:
        """Every tensor of a GGUF file and the parameters it makes."""
        ...


def find_family(model_type: str) -> Family:
    """The family of a config.json's `model_type`; ValueError names the nearest known."""
    # Not at the top: the file imports families' files, and so this one.
    from limner.models.families.additions import WithAdditions

    return WithAdditions(_find(model_type, FAMILIES, "model type"))


def find_gguf_family(architecture: str) -> GGUFFamily:
    """The family of a GGUF `general.architecture`; ValueError names the nearest known."""
    return cast("GGUFFamily", _find(architecture, GGUF_FAMILIES, "GGUF architecture"))


def _find(name: str, known: Mapping[str, str], what: str) -> ModuleType:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"unknown {what} '{name}': {hint}known are {', '.join(sorted(known))}")
    return importlib.import_module(f"limner.models.families.{known[name]}")
