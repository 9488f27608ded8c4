"""`limner bench`: how fast a model runs on this machine, and how fast it could at most."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from limner.commands.info import size
from limner.commands.options import ModelSettings
from limner.commands.terminal import remark

if TYPE_CHECKING:
    from limner.language_model import LanguageModel
    from limner.models.decoder import DecoderConfig


class Command(ModelSettings):
    """How fast a model runs on this machine, beside the most that it could.

    One stream can go no faster than memory gives the weights, a prompt no faster than the processor
    multiplies. Speeds are medians; let nothing else run meanwhile.
    """

    streams: tuple[int, ...] = Field(default=(1, 4, 16), min_length=1)
    """numbers of answers computed side by side"""
    prompt: int = Field(default=128, ge=1)
    """tokens of each prompt"""
    tokens: int = Field(default=32, ge=2)
    """tokens of each answer"""
    as_json: bool = Field(default=False, alias="json")
    """print the figures as JSON, in tokens, bytes, operations and seconds"""


def run(settings: Command) -> None:
    """Measure, and print the figures."""
    model = settings.load()
    if min(settings.streams) < 1:
        raise ValueError(f"streams must be 1 or more, not {min(settings.streams)}")
    if settings.prompt + settings.tokens > model.context:
        raise ValueError(
            f"{settings.prompt} tokens of prompt and {settings.tokens} of answer do not fit the "
            f"context of {model.context}: ask for fewer"
        )
    facts = measured(model, settings)
    print(json.dumps(facts, indent=2) if settings.as_json else "\n".join(report(facts)))


def measured(model: LanguageModel, settings: Command) -> dict[str, Any]:
    """The machine's limits and the model's speeds."""
    from dataclasses import asdict

    from limner.inference.measuring import measure, memory_bandwidth, product_peak
    from limner.nn.packed import number_format, weight_bytes

    remark("measuring the machine ...")
    format = number_format(model.network)
    bits: Literal[4, 8, 32] = 4 if format.startswith("4") else 8 if format.startswith("8") else 32
    speeds: list[dict[str, Any]] = []
    facts: dict[str, Any] = {
        **kernels_in_use(),
        "weights": format,
        "weight_bytes": weight_bytes(model.network),
        "bytes_per_second": memory_bandwidth(),
        "operations_per_second": product_peak(bits),
        "operations_per_token": prompt_operations(model.config, settings.prompt),
        "speeds": speeds,
    }
    for streams in settings.streams:
        remark(f"measuring {streams} streams ...")
        speeds.append(asdict(measure(model.network, streams, settings.prompt, settings.tokens)))
    return facts


def prompt_operations(config: DecoderConfig, length: int) -> int:
    """Operations of a token of a prompt; logits are worked out for the last one only."""
    from limner.models.counting import on_meta, operations_per_token
    from limner.models.decoder import Decoder

    network = on_meta(config)
    assert isinstance(network, Decoder)
    return operations_per_token(network, max(length // 2, 1)) - 2 * config.vocabulary * config.width


def kernels_in_use() -> dict[str, Any]:
    """Which kernels run, and why those."""
    from limner import kernels

    chosen = kernels.current()
    if chosen is None:
        why = "none were built: run `python -m limner.kernels.build`, which needs a C++ compiler"
    else:
        why = f"the best that this processor runs of those built: {', '.join(kernels.available())}"
    name = "plain PyTorch" if chosen is None else chosen.name
    return {"kernels": name, "why": why, "threads": kernels.get_threads()}


def report(facts: dict[str, Any]) -> list[str]:
    """The figures for people, a line each."""
    reading = facts["bytes_per_second"] / facts["weight_bytes"]
    filling = facts["operations_per_second"] / facts["operations_per_token"]
    lines = [
        f"kernels   {facts['kernels']} on {facts['threads']} threads ({facts['why']})",
        f"memory    {facts['bytes_per_second'] / 1e9:.1f} GB/s; the weights are "
        f"{size(facts['weight_bytes'])} in {facts['weights']}: one stream gets at most "
        f"{reading:.0f} tokens a second",
        f"products  {facts['operations_per_second'] / 1e9:.0f} GOP/s; a token of a prompt "
        f"takes {facts['operations_per_token'] / 1e9:.3f} GOP: prompts get at most "
        f"{filling:.0f} tokens a second",
        f"{'streams':>9}{'tokens/s':>12}{'of memory':>12}{'prompt/s':>12}{'of products':>13}",
    ]
    for speed in facts["speeds"]:
        # Each step reads the weights once, whatever the number of streams.
        read = speed["decode"] / speed["streams"] / reading
        lines.append(
            f"{speed['streams']:>9}{speed['decode']:>12.1f}{read:>12.0%}{speed['prefill']:>12.0f}"
            f"{speed['prefill'] / filling:>13.0%}"
        )
    return lines
