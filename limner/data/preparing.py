"""From text to token shards: resumable, every file whole or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from limner.data.corpus import require_tokenizer, shard_places
from limner.data.filtering import (
    Examined,
    Examiner,
    Filters,
    Sieve,
    forget_seen,
    identity,
    learn_boilerplate,
)
from limner.data.manifest import MANIFEST, Manifest, Shard, identify, read_manifest
from limner.data.sources import Source
from limner.files import write_whole
from limner.tokenizers import Tokenizer
from limner.tokenizers.bulk import Encoded

#: Characters of text encoded together: enough for all cores, little beside a shard.
BATCH_CHARACTERS = 4_000_000
#: Called with (tokens so far, bytes of text so far).
Progress = Callable[[int, int], None]
#: Reads a source to its end and has its documents examined, some millions of characters at a time;
#: the source then stands after those given.
Reader = Callable[[Source, Examiner], Iterator[list[Examined]]]


@dataclass
class _Unfinished:
    """The shard being gathered; as arrays, since lists of numbers take ten times the memory."""

    dtype: numpy.dtype[Any]
    ids: list[NDArray[Any]] = field(default_factory=list)
    lengths: list[NDArray[numpy.int64]] = field(default_factory=list)
    tokens: int = 0
    text_bytes: int = 0

    def add(self, encoded: Encoded, texts: Sequence[str]) -> None:
        self.ids.append(encoded.ids.astype(self.dtype))
        self.lengths.append(encoded.lengths)
        self.tokens += len(encoded.ids)
        self.text_bytes += sum(len(text.encode()) for text in texts)


def read_here(source: Source, examiner: Examiner) -> Iterator[list[Examined]]:
    """Read and examine in this process."""
    return map(examiner, batches_of_text(source))


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    filters: Filters | None = None,
    refused: Path | None = None,
    shard_tokens: int = 50_000_000,
    read: Reader = read_here,
    progress: Progress | None = None,
) -> Manifest:
    """Encode all documents of a source into memory-mapped shards of about `shard_tokens` tokens.

    A document begins as the model's prompts do (with BOS, if the tokenizer writes one) and ends
    with EOS. The folder gets the shards, their manifest and the tokenizer. If it holds part of the
    same work, that is gone on with; if all of it, nothing is done.

    Args:
        source: the documents.
        tokenizer: which makes the tokens.
        folder: where the shards go.
        filters: what is done to documents first, and which of them are left out.
        refused: a new file for those, as JSON lines with `reason`, `detail` and `text`.
        shard_tokens: tokens of a shard, about.
        read: how the source is read and examined: here, or by several machines.
        progress: called after every few million characters.

    Raises:
        ValueError: the tokenizer has no EOS, the folder holds other work, nothing is left after
            the filters, or a library that they need is not installed.
        OSError: the disk is full; what is written stays, and the next call goes on from there.
    """
    examiner = Examiner(filters or Filters())
    require_writable(folder, refused)
    manifest = begin(source, tokenizer, folder, identity(examiner))
    if not manifest.complete:
        learn_boilerplate(examiner, source)
        if manifest.position is not None:
            source.load_state_dict(manifest.position)
        with closing(Sieve(examiner.filters, manifest, folder, refused)) as sieve:
            work = _Work(source, tokenizer, folder, sieve, shard_tokens, progress)
            manifest = work.finish(work.write(manifest, read(source, examiner)))
    forget_seen(folder, manifest)
    return manifest


def require_writable(folder: Path, refused: Path | None) -> None:
    """ValueError if the file of refused documents is not one of this work, or comes too late."""
    if refused is None:
        return
    begun = (folder / MANIFEST).exists()
    if begun and read_manifest(folder).complete and not refused.exists():
        raise ValueError(
            f"'{folder}' is complete, so there is nothing to write into {refused}: "
            "name another folder"
        )
    if not begun and refused.exists():
        raise ValueError(f"{refused} exists: name another file, or delete it")


@dataclass
class _Work:
    """Turns examined documents into shards."""

    source: Source
    tokenizer: Tokenizer
    folder: Path
    sieve: Sieve
    shard_tokens: int
    progress: Progress | None

    def write(self, manifest: Manifest, batches: Iterable[Sequence[Examined]]) -> Manifest:
        """Write all documents that come through the sieve."""
        dtype = numpy.dtype(manifest.dtype).newbyteorder("<")
        shard = _Unfinished(dtype)
        for examined in batches:
            texts = self.sieve.keep(examined)
            shard.add(encode_documents(self.tokenizer, texts), texts)
            if shard.tokens >= self.shard_tokens:
                manifest = self.close(shard, manifest)
                shard = _Unfinished(dtype)
            if self.progress is not None:
                done = manifest.text_bytes + shard.text_bytes
                self.progress(manifest.tokens + shard.tokens, done)
        return self.close(shard, manifest) if shard.tokens else manifest

    def close(self, shard: _Unfinished, manifest: Manifest) -> Manifest:
        """Write the shard, then the manifest that names it; a kill in between costs this only."""
        entry = write_shard(shard, f"{len(manifest.shards):05}.tokens", self.folder)
        changes = self.sieve.save(self.folder, entry.file)
        changes |= {"shards": (*manifest.shards, entry), "position": self.source.state_dict()}
        manifest = manifest.model_copy(update=changes)
        manifest.save(self.folder)
        return manifest

    def finish(self, manifest: Manifest) -> Manifest:
        """Say in the manifest that nothing is missing; ValueError if there was no text."""
        manifest = manifest.model_copy(update={**self.sieve.account(), "complete": True})
        if not manifest.shards:
            raise ValueError(nothing_left(manifest))
        manifest.save(self.folder)
        return manifest


def nothing_left(manifest: Manifest) -> str:
    """Why there are no tokens."""
    if not manifest.refused:
        return f"'{manifest.source}' holds no text"
    total = sum(amount.documents for amount in manifest.refused.values())
    reason = max(manifest.refused, key=lambda name: manifest.refused[name].documents)
    return (
        f"all {total} documents of '{manifest.source}' were refused, most of them for {reason}: "
        "loosen the filters"
    )


def begin(
    source: Source, tokenizer: Tokenizer, folder: Path, filters: dict[str, Any] | None = None
) -> Manifest:
    """The manifest to go on from, written if there is none; ValueError if it is of other work."""
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        require_tokenizer(manifest.tokenizer, tokenizer, folder)
        if manifest.source != source.name:
            raise ValueError(
                f"'{folder}' holds tokens of '{manifest.source}', not of '{source.name}': "
                "name another folder"
            )
        if manifest.filters != filters:
            raise ValueError(
                f"'{folder}' was begun with other filters ({manifest.filters}, now {filters}): "
                "name another folder"
            )
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    manifest = Manifest(
        dtype="uint16" if tokenizer.vocabulary_size <= 2**16 else "uint32",
        tokenizer=identify(tokenizer),
        source=source.name,
        filters=filters,
    )
    manifest.save(folder)
    return manifest


def batches_of_text(source: Source) -> Iterator[list[str]]:
    """Runs of documents of about `BATCH_CHARACTERS` together."""
    texts: list[str] = []
    size = 0
    for text in source:
        texts.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> Encoded:
    """Tokens of documents, each with what the model's input begins with and with EOS at its end.

    Raises ValueError if the tokenizer has neither EOS nor a token that ends its inputs.
    """
    end = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.separator_id
    if end is None:
        raise ValueError(
            "the tokenizer has no eos_token, so a model could never learn to stop: "
            "name one in its tokenizer_config.json"
        )
    before, after = tokenizer.frame
    after = after if after[-1:] == [end] else [*after, end]
    return tokenizer.bulk.encode(texts).framed(before, after)


def write_shard(shard: _Unfinished, name: str, folder: Path) -> Shard:
    """Write a shard, whole or not at all; its entry in the manifest."""
    tokens = numpy.concatenate(shard.ids)
    ends = numpy.cumsum(numpy.concatenate(shard.lengths), dtype="<i8")
    padding = bytes(shard_places(shard.tokens, shard.dtype) - tokens.nbytes)
    parts = [tokens.tobytes(), padding, ends.tobytes()]
    write_whole(folder / name, parts)
    return Shard(
        file=name,
        tokens=shard.tokens,
        documents=len(ends),
        text_bytes=shard.text_bytes,
        hash=hashlib.sha256(b"".join(parts)).hexdigest(),
    )
