"""`limner info`: what a model is made of, and the memory and arithmetic it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from limner.commands.command_line import CommandSettings


class Command(CommandSettings):
    """What a model is made of, and the memory and arithmetic it takes.

    Worked out from the config; no weights are read. "Will it fit?" is the column "together".
    """

    positional: ClassVar[tuple[str, ...]] = ("model",)

    model: str
    """a name of the catalogue, a folder, a .gguf file, OWNER/REPOSITORY of the hub, or a
    published shape such as gpt3-175b, of which only the config is known"""
    context: int | None = Field(default=None, ge=1)
    """how many tokens to reckon with; the model's own context if not given"""
    as_json: bool = Field(default=False, alias="json")
    """print the facts as JSON, in bytes and plain numbers"""


def run(settings: Command) -> None:
    """Print the facts."""
    from limner.checkpoints.catalogue import resolve
    from limner.checkpoints.checkpoint import open_checkpoint
    from limner.language_model.summary import summarise, summarise_config
    from limner.models.presets import PRESETS, preset

    if settings.model in PRESETS and not Path(settings.model).exists():
        facts = summarise_config(preset(settings.model), settings.context)
    else:
        facts = summarise(open_checkpoint(resolve(settings.model)), settings.context)
    if settings.as_json:
        print(json.dumps(facts, ensure_ascii=False, indent=2))
    else:
        print("\n".join(report(facts)))


def report(facts: dict[str, Any]) -> list[str]:
    """The facts for people, a line each."""
    from limner.models.counting import abbreviate

    lines = [
        f"{facts['path']}  ({facts['format']})" if "path" in facts else "a published shape",
        f"architecture  {facts['family']}, width {facts['width']:,}, made for "
        f"{facts['longest_context']:,} tokens",
        *(f"  {run}" for run in facts["layers"]),
    ]
    total = sum(facts["parameters"].values())
    lines.append(f"parameters    {abbreviate(total)} ({total:,})")
    for part, count in facts["parameters"].items():
        lines.append(f"  {part:15} {count:>19,}  {count / total:6.1%}")
    if facts["active"] != total:
        lines.append(f"  of which a token meets {abbreviate(facts['active'])}")
    lines += memory_table(facts)
    if facts["operations_per_token"]:
        first, last = facts["operations_per_token"]
        lines.append(
            f"operations    {abbreviate(first)} for the first token, {abbreviate(last)} for token "
            f"{facts['context']:,}"
        )
    if "tokenizer" in facts:
        lines.append(f"tokenizer     {facts['tokenizer'] or 'none'}")
        lines.append(f"chat template {facts['chat_template'] or 'none'}")
    return lines


def memory_table(facts: dict[str, Any]) -> list[str]:
    """Weights, cache and both in each number format."""
    lines = [
        f"memory        at {facts['context']:,} tokens of context",
        f"  {'format':10}{'weights':>12}{'cache':>12}{'together':>12}",
    ]
    for name, (weights, cache) in facts["memory"].items():
        sizes = (weights, cache, weights + cache)
        lines.append(f"  {name:10}" + "".join(f"{size(count):>12}" for count in sizes))
    return lines


def size(count: float) -> str:
    """A number of bytes for people."""
    unit = next((unit for unit in UNITS if count >= UNITS[unit]), "kB")
    return f"{count / UNITS[unit]:,.1f} {unit}"


UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
