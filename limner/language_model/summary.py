"""What a model is made of and what it takes, from its checkpoint's header alone."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from limner.checkpoints.checkpoint import Checkpoint
from limner.models.counting import (
    FORMATS,
    cache_bytes,
    count_parameters,
    on_meta,
    operations_per_token,
    parameters_by_part,
)
from limner.models.decoder import Decoder
from limner.models.network import Network


def summarise(checkpoint: Checkpoint, context: int | None = None) -> dict[str, Any]:
    """Plain facts: architecture, parameters by part, memory (bytes), operations, tokenizer.

    `context` is how many tokens to reckon with, the model's own if not given. "memory" holds
    [weights, cache] by number format; a cache is kept in 16 bits beside weights of fewer.
    Raises ValueError if the context is longer than the model's own.
    """
    config: Any = checkpoint.config
    context = config.context if context is None else context
    if context > config.context:
        raise ValueError(
            f"context is {context}, but the model was made for {config.context} tokens"
        )
    network = on_meta(checkpoint.config)
    tokenizer = checkpoint.tokenizer()
    template = tokenizer.chat_template
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "family": config.family,
        "layers": layers(config.blocks),
        "width": config.width,
        "longest_context": config.context,
        "context": context,
        "parameters": parameters_by_part(network),
        "memory": memory(network, context),
        "operations_per_token": operations(network, context),
        "tokenizer": repr(tokenizer),
        "chat_template": None if template is None else first_line(template.source),
    }


def memory(network: Network, context: int) -> dict[str, list[float]]:
    """Bytes of the weights and of the cache of one text, by number format of the weights."""
    count = count_parameters(network)
    table = {}
    for name, bits in FORMATS.items():
        kept = (
            cache_bytes(network, context, max(bits, 16) / 8) if isinstance(network, Decoder) else 0
        )
        table[name] = [count * bits / 8, kept]
    return table


def operations(network: Network, context: int) -> list[int] | None:
    """Operations of the first token and of the last that fits; None if it is no decoder."""
    if not isinstance(network, Decoder):
        return None
    return [operations_per_token(network, length) for length in (1, context)]


def layers(blocks: tuple[Any, ...]) -> list[str]:
    """The layers in words, those that follow one another and are alike together."""
    runs = [(block, len(list(same))) for block, same in itertools.groupby(blocks)]
    return [f"{count} x {block_in_words(block)}" for block, count in runs]


def block_in_words(block: Any) -> str:
    """What a block computes one after another."""
    return " + ".join(
        in_words(part) for part in (block.mixer, block.cross, block.feedforward) if part
    )


def in_words(part: Any) -> str:
    """A part's name and the settings in which it differs from the default."""
    name = type(part).__name__.removesuffix("Config")
    settings = []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if value != field.default:
            shown = in_words(value) if dataclasses.is_dataclass(value) else value
            settings.append(f"{field.name}={shown}")
    return f"{name}({', '.join(settings)})"


def first_line(source: str, longest: int = 60) -> str:
    """The beginning of a template, enough to recognise it."""
    line = " ".join(source.split())
    return line if len(line) <= longest else f"{line[:longest]}..."
