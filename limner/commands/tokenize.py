"""`limner tokenize`: show how a text is cut into tokens."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import read_text

if TYPE_CHECKING:
    from limner.tokenizers import Tokenizer

#: Backgrounds that black text can be read on, which every terminal has; used in turn.
COLOURS = ("cyan", "yellow", "green", "magenta")
VISIBLE = str.maketrans({"\n": "↵\n", "\t": "⇥\t", "\r": "␍"})


class Command(CommandSettings):
    """Show how a text is cut into tokens.

    On a terminal the tokens are coloured, each with its id; elsewhere there is one on each line:
    its id, a tab, and its text as a JSON string. The text is the second argument, or --file, or
    standard input.
    """

    positional: ClassVar[tuple[str, ...]] = ("model", "text")

    model: str
    """a model, or a tokenizer.json, or a SentencePiece .model file"""
    text: str | None = None
    """the text"""
    file: Path | None = None
    """read the text from this file"""
    add_special_tokens: bool = True
    """add what the model's input begins and ends with"""
    parse_special: bool = False
    """read special tokens such as <|im_end|> out of the text, instead of as plain characters"""
    ids: bool = False
    """print the ids only, in one line"""
    as_json: bool = Field(default=False, alias="json")
    """print a JSON list of {"id", "token", "text"}"""


def run(settings: Command) -> None:
    """Print the tokens in the form asked for."""
    from limner.language_model.completion import token_text

    text = read_text(settings.text, settings.file, "text")
    tokenizer = find_tokenizer(settings.model)
    ids = tokenizer.encode(
        text,
        add_special_tokens=settings.add_special_tokens,
        parse_special=settings.parse_special,
    )
    tokens = [(token, token_text(tokenizer, token)) for token in ids]
    if settings.ids:
        print(*ids)
    elif settings.as_json:
        rows = [{"id": i, "token": tokenizer.token(i), "text": shown} for i, shown in tokens]
        print(json.dumps(rows, ensure_ascii=False))
    elif sys.stdout.isatty():
        print_coloured(tokens, tokenizer)
    else:
        for token, shown in tokens:
            print(token, json.dumps(shown, ensure_ascii=False), sep="\t")


def find_tokenizer(model: str) -> Tokenizer:
    """The tokenizer of a model or of a file of its own; no weights are read."""
    from limner.checkpoints.catalogue import resolve
    from limner.checkpoints.checkpoint import open_checkpoint
    from limner.tokenizers import load_tokenizer

    path = resolve(model)
    bare = path.suffix in (".json", ".model") or not (
        path.is_file() or (path / "config.json").exists()
    )
    return load_tokenizer(path) if bare else open_checkpoint(path).tokenizer()


def print_coloured(tokens: list[tuple[int, str]], tokenizer: Tokenizer) -> None:
    """The text in colours that change at each token, ids behind them, and the count."""
    from rich.console import Console
    from rich.text import Text

    line = Text()
    for place, (token, shown) in enumerate(tokens):
        special = token in tokenizer.special_ids
        style = "bold reverse" if special else f"black on {COLOURS[place % len(COLOURS)]}"
        visible = shown.translate(VISIBLE)
        line.append(visible.removesuffix("\n"), style)
        line.append(f"{token} ", "dim")
        line.append("\n" if visible.endswith("\n") else "")
    console = Console(highlight=False)
    console.print(line)
    console.print(f"{len(tokens)} tokens", style="dim")
