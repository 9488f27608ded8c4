"""`limner data`: turn texts into shards of tokens, or say what a folder of them holds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import remark
from limner.data.filtering import Filters

if TYPE_CHECKING:
    from limner.data.manifest import Manifest
    from limner.data.preparing import Reader


class Command(CommandSettings, Filters):
    """Turn texts into shards of tokens to train on, or say what such a folder holds.

    `limner data prepare SOURCE FOLDER --tokenizer MODEL` encodes all documents of a source. If it
    is stopped, the same command goes on. `limner data info FOLDER` checks every shard against its
    hash and prints counts. What is done to documents first (repair, quality, contamination,
    personal data, duplicates) is best written in a settings file; what they took out is printed.
    """

    positional: ClassVar[tuple[str, ...]] = ("action", "source", "folder")

    action: Literal["prepare", "info"]
    """what to do"""
    source: str | list[str]
    """a file, folder or glob of texts, JSON lines or Parquet, compressed or not; hub:OWNER/NAME, a
    data set of the hub; python, Python's own standard library; or topics, its language reference.
    --source can be given several times. With info: the folder"""
    folder: Path | None = None
    """where the shards go"""
    tokenizer: str | None = None
    """a model, or a tokenizer.json, or a SentencePiece .model file"""
    unit: Literal["file", "line", "paragraph"] = "file"
    """what one document is, in plain text"""
    field: str = "text"
    """what holds the text, in JSON lines and Parquet"""
    shard_tokens: int = Field(default=50_000_000, ge=1)
    """tokens of a shard, about"""
    refused: Path | None = None
    """a new file for the documents that were left out, as JSON lines with the reason"""
    workers: int = Field(default=1, ge=1)
    """processes that examine documents; more pay off with filters"""
    cluster: bool = False
    """read and examine on the Ray cluster at RAY_ADDRESS, or on one of this machine's cores; the
    files are the same"""

    @property
    def filters(self) -> Filters:
        """The settings that are of filters."""
        return Filters.model_validate({name: getattr(self, name) for name in Filters.model_fields})


def run(settings: Command) -> None:
    """Do it, and print what the folder holds."""
    print("\n".join(report(info(settings) if settings.action == "info" else prepare(settings))))


def prepare(settings: Command) -> Manifest:
    """Encode a source."""
    from limner.commands.tokenize import find_tokenizer
    from limner.data.preparing import prepare
    from limner.data.sources import open_source

    if settings.folder is None:
        raise ValueError("folder: missing: say where the shards are to go")
    if settings.tokenizer is None:
        raise ValueError("tokenizer: missing: name the model whose tokenizer is to be used")
    return prepare(
        open_source(settings.source, unit=settings.unit, field=settings.field),
        find_tokenizer(settings.tokenizer),
        settings.folder,
        filters=settings.filters,
        refused=settings.refused,
        shard_tokens=settings.shard_tokens,
        read=reader(settings),
        progress=counter(),
    )


def reader(settings: Command) -> Reader:
    """Where documents are examined."""
    from limner.data.preparing import read_here

    if settings.cluster:
        from limner.data.cluster import ClusterReader

        return ClusterReader()
    if settings.workers > 1:
        from limner.data.workers import WorkerReader

        return WorkerReader(settings.workers)
    return read_here


def info(settings: Command) -> Manifest:
    """Check the shards of a folder."""
    from limner.data.corpus import open_corpus

    name = settings.source if isinstance(settings.source, str) else settings.source[0]
    return open_corpus(Path(name))[1]


def counter() -> Callable[[int, int], None] | None:
    """Shows on a terminal how far preparation is; how much there is to do is not known."""
    if not sys.stderr.isatty():
        return None
    started = time.perf_counter()

    def show(tokens: int, text_bytes: int) -> None:
        speed = text_bytes / 1e6 / (time.perf_counter() - started)
        line = f"{tokens:,} tokens, {text_bytes / 1e6:,.1f} MB, {speed:.1f} MB/s"
        remark(f"\033[F\033[K{line}")

    remark("")
    return show


def report(manifest: Manifest) -> list[str]:
    """What a manifest says, for people."""
    ratio = manifest.text_bytes / max(manifest.tokens, 1)
    lines = [
        f"source      {manifest.source}",
        f"documents   {manifest.documents:,}",
        f"tokens      {manifest.tokens:,} ({ratio:.2f} bytes each, {manifest.dtype})",
        f"text        {manifest.text_bytes / 1e6:,.1f} MB",
        f"shards      {len(manifest.shards)}",
        f"tokenizer   {manifest.tokenizer.vocabulary:,} tokens, {manifest.tokenizer.hash[:12]}",
    ]
    return lines + account(manifest)


def account(manifest: Manifest) -> list[str]:
    """What filters left out and what they found, as a table."""
    if manifest.filters is None:
        return []
    total = manifest.documents + sum(one.documents for one in manifest.refused.values())
    rows = [("refused", name, one) for name, one in manifest.refused.items()]
    rows += [("kept, with", name, one) for name, one in manifest.noted.items()]
    width = max([len(name) for _, name, _ in rows], default=0)
    return [
        "",
        f"{total:,} documents were read, {manifest.documents:,} kept",
        *(
            f"{kind:<11} {name:<{width}} {one.documents:>9,} documents "
            f"{one.documents / max(total, 1):>6.1%} {one.text_bytes:>13,} bytes"
            for kind, name, one in sorted(rows, key=lambda row: (row[0] != "refused", row[1]))
        ),
    ]
