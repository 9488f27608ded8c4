"""What a model is made of and what it takes, from its checkpoint's header alone."""

from __future__ import annotations

import dataclasses
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
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.network import Network, NetworkConfig
from limner.models.seeing import Seeing
from limner.nn.mixture import idle_parameters


def summarise(checkpoint: Checkpoint, context: int | None = None) -> dict[str, Any]:
    """Plain facts: what `summarise_config` says, the tokenizer and the template.

    Raises ValueError if the context is longer than the model's own.
    """
    try:
        tokenizer = checkpoint.tokenizer()
    except FileNotFoundError:  # a model of images alone needs none
        tokenizer = None
    template = tokenizer.chat_template if tokenizer else None
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        **summarise_config(checkpoint.config, context),
        "tokenizer": repr(tokenizer) if tokenizer else None,
        "chat_template": None if template is None else first_line(template.source),
    }


def summarise_config(config: NetworkConfig, context: int | None = None) -> dict[str, Any]:
    """Plain facts: architecture, parameters by part, memory (bytes), operations.

    `context` is how many tokens to reckon with, the model's own if not given. "active" are the
    parameters that a token meets, fewer than all in a mixture of experts. "memory" holds
    [weights, cache] by number format; a cache is kept in 16 bits beside weights of fewer.
    Raises ValueError if the context is longer than the model's own.
    """
    context = config.context if context is None else context
    if context > config.context:
        raise ValueError(
            f"context is {context}, but the model was made for {config.context} tokens"
        )
    network = on_meta(config)
    return {
        "family": config.family,
        "layers": layers(config.blocks),
        "width": config.width,
        "longest_context": config.context,
        "context": context,
        "parameters": parameters_by_part(network),
        "active": count_parameters(network) - idle_parameters(network),
        "memory": memory(network, context),
        "operations_per_token": operations(network, context),
    }


def memory(network: Network, context: int) -> dict[str, list[float]]:
    """Bytes of the weights and of the cache of one text, by number format of the weights."""
    count = count_parameters(network)
    writer = decoder_of(network)
    table = {}
    for name, bits in FORMATS.items():
        kept = 0.0 if writer is None else cache_bytes(writer, context, max(bits, 16) / 8)
        table[name] = [count * bits / 8, kept]
    return table


def decoder_of(network: Network) -> Decoder | None:
    """The part that writes token by token, if there is one."""
    if isinstance(network, EncoderDecoder | Seeing):
        return network.decoder
    return network if isinstance(network, Decoder) else None


def operations(network: Network, context: int) -> list[int] | None:
    """Operations of the first token and of the last that fits; None if it is no decoder."""
    writer = decoder_of(network)
    if writer is None:
        return None
    return [operations_per_token(writer, length) for length in (1, context)]


def layers(blocks: tuple[Any, ...]) -> list[str]:
    """The layers in words, those that are alike together."""
    kinds: list[tuple[Any, list[int]]] = []
    for number, block in enumerate(blocks):
        alike = next((numbers for kind, numbers in kinds if kind == block), None)
        if alike is None:
            kinds.append((block, [number]))
        else:
            alike.append(number)
    if len(kinds) == 1:
        return [f"{len(blocks)} x {block_in_words(blocks[0])}"]
    return [f"{places(numbers)}: {block_in_words(kind)}" for kind, numbers in kinds]


def places(numbers: list[int]) -> str:
    """Layers counted from 0: "layers 3 to 60", "layers 1, 3, 5 ... 95"."""
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"layers {numbers[0]} to {numbers[-1]}"
    if len(numbers) <= 6:
        return "layers " + ", ".join(map(str, numbers))
    first = ", ".join(map(str, numbers[:3]))
    return f"{len(numbers)} layers, {first} ... {numbers[-1]}"


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
