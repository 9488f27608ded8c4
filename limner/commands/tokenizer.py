"""`limner tokenizer`: train a tokenizer on texts, or compare several on one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.tokenizers.training_settings import TokenizerSettings

if TYPE_CHECKING:
    from limner.tokenizers.comparing import Measured
    from limner.tokenizers.training_sample import Documents, Progress

#: Settings that one of the two actions alone has.
TRAINING = {*TokenizerSettings.model_fields, "field"}
COMPARING = {"text", "megabytes", "as_json"}
#: Kinds whose trainers draw bars.
DRAWING = ("bpe", "wordpiece", "word")


class Command(TokenizerSettings, CommandSettings):
    """Train a tokenizer on texts, or compare several on one.

    `limner tokenizer train SOURCE... FOLDER` writes a tokenizer.json, which limner and transformers
    open. Sources are those of `limner data prepare`. `limner tokenizer compare TOKENIZER...` prints
    a table: bytes a token, tokens a word (fertility), words that are one token, texts that decode
    to what they were, and speed.
    """

    positional: ClassVar[tuple[str, ...]] = ("action", "names")

    action: Literal["train", "compare"]
    """what to do"""
    names: list[str]
    """train: files, folders or globs of texts, JSON lines or Parquet, compressed or not; python,
    Python's own standard library; or topics, its language reference; and last the folder to write.
    compare: models, folders, tokenizer.json or SentencePiece .model files"""
    field: str = "text"
    """train: what holds the text, in JSON lines and Parquet"""
    text: str = "python"
    """compare: the text, named as a source is"""
    megabytes: float = Field(default=1.0, gt=0)
    """compare: how much of the text, evenly chosen, is encoded"""
    as_json: bool = Field(default=False, alias="json")
    """compare: print a JSON list"""


def run(settings: Command) -> None:
    """Do it."""
    foreign = COMPARING if settings.action == "train" else TRAINING
    unused = sorted(foreign & settings.model_fields_set)
    if unused:
        raise ValueError(f"{unused[0]}: `limner tokenizer {settings.action}` has no such setting")
    {"train": train, "compare": compare}[settings.action](settings)


def train(settings: Command) -> None:
    """Train, write and say where."""
    from limner.tokenizers.training import refuse_files, save_new, train_tokenizer

    if len(settings.names) < 2:
        raise ValueError("give what to learn from and the folder to write: SOURCE... FOLDER")
    *sources, last = settings.names
    folder = Path(last)
    refuse_files(folder)
    with progress_line(settings.kind) as progress:
        tokenizer = train_tokenizer(
            documents_of(sources, settings.field),
            settings,
            progress=progress,
            show=progress is not None,
        )
    save_new(tokenizer, folder)
    print(f"{folder}: {tokenizer.kind}, {tokenizer.vocabulary_size:,} tokens")


def documents_of(sources: list[str], field: str) -> Documents:
    """Gives the texts of sources anew each time; a source that is not there is an error at once."""
    from limner.data.sources import open_source

    open_source(sources, field=field)
    return lambda: open_source(sources, unit="block", field=field)


@contextmanager
def progress_line(kind: str) -> Iterator[Progress | None]:
    """A callback that shows how much text has been read; None off a terminal.

    It gives way to the bars of a trainer that draws some for words and merges.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("Reading") as status:

        def report(size: int, all_read: bool) -> None:
            status.update(f"{'Learning from' if all_read else 'Reading'} {size / 1e6:,.1f} MB")
            if all_read and kind in DRAWING:
                status.stop()

        yield report


def compare(settings: Command) -> None:
    """Print the table."""
    from limner.commands.tokenize import find_tokenizer
    from limner.tokenizers.comparing import measure_tokenizer
    from limner.tokenizers.training_sample import measure, sample

    tokenizers = {name: find_tokenizer(name) for name in settings.names}
    documents = documents_of([settings.text], settings.field)
    limit = round(settings.megabytes * 1e6)
    texts = list(sample(documents, measure(documents, False).size, limit))
    found = {name: measure_tokenizer(own, texts) for name, own in tokenizers.items()}
    if settings.as_json:
        print(json.dumps([{"tokenizer": name} | asdict(row) for name, row in found.items()]))
    else:
        print("\n".join(table(found)))


def table(found: dict[str, Measured]) -> list[str]:
    """A line for each tokenizer, under a line of headings."""
    width = max(9, *map(len, found))
    heads = f"{'tokenizer':{width}}  {'kind':18}  {'vocabulary':>10}  {'bytes/token':>11}"
    lines = [f"{heads}  {'tokens/word':>11}  {'whole words':>11}  {'restored':>8}  {'MB/s':>6}"]
    for name, row in found.items():
        lines.append(
            f"{name:{width}}  {row.kind:18}  {row.vocabulary:10,}  {row.bytes_per_token:11.2f}  "
            f"{row.fertility:11.2f}  {row.whole_words:11.1%}  {row.restored:8.1%}  "
            f"{row.megabytes_per_second:6.2f}"
        )
    return lines
