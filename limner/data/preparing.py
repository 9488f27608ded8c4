"""From text to token shards: resumable, every file whole or absent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from limner.data.corpus import require_tokenizer, shard_places
from limner.data.files import write_whole
from limner.data.manifest import MANIFEST, Manifest, Shard, identify, read_manifest
from limner.data.sources import Source
from limner.tokenizers import Tokenizer

#: Characters of text encoded together: enough for all cores, little beside a shard.
BATCH_CHARACTERS = 4_000_000
#: Called with (tokens so far, bytes of text so far).
Progress = Callable[[int, int], None]


@dataclass
class _Unfinished:
    """The shard being gathered; as arrays, since lists of numbers take ten times the memory."""

    dtype: numpy.dtype[Any]
    documents: list[NDArray[Any]] = field(default_factory=list)
    tokens: int = 0
    text_bytes: int = 0

    def add(self, documents: Sequence[list[int]], texts: Sequence[str]) -> None:
        self.documents += [numpy.asarray(ids, self.dtype) for ids in documents]
        self.tokens += sum(map(len, documents))
        self.text_bytes += sum(len(text.encode()) for text in texts)


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    shard_tokens: int = 50_000_000,
    progress: Progress | None = None,
) -> Manifest:
    """Encode all documents of a source into memory-mapped shards of about `shard_tokens` tokens.

    A document begins as the model's prompts do (with BOS, if the tokenizer writes one) and ends
    with EOS. The folder gets the shards, their manifest and the tokenizer. If it holds part of the
    same work, that is gone on with; if all of it, nothing is done.

    Raises:
        ValueError: the tokenizer has no EOS, or the folder holds the tokens of another source or
            tokenizer.
        OSError: the disk is full; what is written stays, and the next call goes on from there.
    """
    manifest = begin(source, tokenizer, folder)
    if manifest.complete:
        return manifest
    if manifest.position is not None:
        source.load_state_dict(manifest.position)
    dtype = numpy.dtype(manifest.dtype).newbyteorder("<")
    shard = _Unfinished(dtype)
    for texts in batches_of_text(source):
        shard.add(encode_documents(tokenizer, texts), texts)
        if shard.tokens >= shard_tokens:
            manifest = close_shard(shard, manifest, source, folder)
            shard = _Unfinished(dtype)
        if progress is not None:
            done = manifest.text_bytes + shard.text_bytes
            progress(manifest.tokens + shard.tokens, done)
    if shard.documents:
        manifest = close_shard(shard, manifest, source, folder)
    return finish(manifest, source, folder)


def begin(source: Source, tokenizer: Tokenizer, folder: Path) -> Manifest:
    """The manifest to go on from, written if there is none; ValueError if it is of other work."""
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        require_tokenizer(manifest.tokenizer, tokenizer, folder)
        if manifest.source != source.name:
            raise ValueError(
                f"'{folder}' holds tokens of '{manifest.source}', not of '{source.name}': "
                "name another folder"
            )
        return manifest
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    manifest = Manifest(
        dtype="uint16" if tokenizer.vocabulary_size <= 2**16 else "uint32",
        tokenizer=identify(tokenizer),
        source=source.name,
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


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of documents, each with what the model's input begins with and with EOS at its end.

    Raises ValueError if the tokenizer has neither EOS nor a token that ends its inputs.
    """
    end = tokenizer.eos_id if tokenizer.eos_id is not None else tokenizer.separator_id
    if end is None:
        raise ValueError(
            "the tokenizer has no eos_token, so a model could never learn to stop: "
            "name one in its tokenizer_config.json"
        )
    documents = tokenizer.encode_batch(texts)
    return [ids if ids[-1:] == [end] else [*ids, end] for ids in documents]


def close_shard(shard: _Unfinished, manifest: Manifest, source: Source, folder: Path) -> Manifest:
    """Write the shard, then the manifest that names it; a kill in between costs this shard only."""
    tokens = numpy.concatenate(shard.documents)
    ends = numpy.cumsum([len(ids) for ids in shard.documents], dtype="<i8")
    padding = bytes(shard_places(shard.tokens, shard.dtype) - tokens.nbytes)
    parts = [tokens.tobytes(), padding, ends.tobytes()]
    name = f"{len(manifest.shards):05}.tokens"
    write_whole(folder / name, parts)
    entry = Shard(
        file=name,
        tokens=shard.tokens,
        documents=len(shard.documents),
        text_bytes=shard.text_bytes,
        hash=hashlib.sha256(b"".join(parts)).hexdigest(),
    )
    changes = {"shards": (*manifest.shards, entry), "position": source.state_dict()}
    manifest = manifest.model_copy(update=changes)
    manifest.save(folder)
    return manifest


def finish(manifest: Manifest, source: Source, folder: Path) -> Manifest:
    """Say in the manifest that nothing is missing; ValueError if the source had no text."""
    if not manifest.shards:
        raise ValueError(f"'{source.name}' holds no text")
    manifest = manifest.model_copy(update={"complete": True})
    manifest.save(folder)
    return manifest
