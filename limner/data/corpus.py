"""A corpus of tokens: documents laid end to end, read by memory map where they are in shards.

N tokens of the corpus, M documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from limner.data.manifest import Manifest, Shard, TokenizerIdentity, identify, read_manifest
from limner.tokenizers import Tokenizer

Integers = NDArray[numpy.int64]
#: Tokens, and where in them documents end.
Piece = tuple[NDArray[Any], Integers]


@dataclass(frozen=True)
class Corpus:
    """Tokens `start` to `stop` of some pieces, as one long row of documents.

    `starts` are the tokens before each piece, and then all; `ends` where each document ends.
    """

    pieces: tuple[NDArray[Any], ...]
    starts: Integers
    ends: Integers
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def documents(self) -> int:
        """How many documents it has, those cut at its ends counted."""
        if not len(self):
            return 0
        first, last = self._numbers(numpy.array([0, len(self) - 1]))
        return int(last - first) + 1

    def document_ends(self) -> Integers:
        """Where each document ends, (M,), counted from the corpus' own start."""
        inner = self.ends[(self.ends > self.start) & (self.ends < self.stop)] - self.start
        return numpy.append(inner, len(self)) if len(self) else inner

    def read(self, start: int, stop: int) -> tuple[Integers, Integers]:
        """Tokens `start` to `stop` of the corpus and the numbers of their documents."""
        assert 0 <= start <= stop <= len(self)
        first, last = self.start + start, self.start + stop
        begin = int(numpy.searchsorted(self.starts, first, side="right")) - 1
        parts = []
        for number in range(begin, len(self.pieces)):
            offset = int(self.starts[number])
            if offset >= last:
                break
            parts.append(self.pieces[number][max(first - offset, 0) : last - offset])
        empty = numpy.zeros(0, numpy.int64)
        tokens = numpy.concatenate([empty, *parts])
        return tokens, self._numbers(numpy.arange(start, stop))

    def split(self, share: float) -> tuple[Corpus, Corpus]:
        """The corpus without its last `share`, and that, for training and validation.

        Raises ValueError if a side would have no two tokens.
        """
        cut = self.stop - round(share * len(self))
        if cut - self.start < 2 or self.stop - cut < 2:
            raise ValueError(
                f"a share of {share} does not split {len(self)} tokens: one side would be empty"
            )
        return replace(self, stop=cut), replace(self, start=cut)

    def _numbers(self, places: Integers) -> Integers:
        return numpy.searchsorted(self.ends, places + self.start, side="right").astype(numpy.int64)


def corpus_of(pieces: Sequence[Piece]) -> Corpus:
    """A corpus of pieces; no document is in two of them."""
    sizes = [len(tokens) for tokens, _ in pieces]
    starts = numpy.cumsum([0, *sizes], dtype=numpy.int64)
    offsets = zip(pieces, starts[:-1], strict=True)
    ends = [piece_ends + offset for (_, piece_ends), offset in offsets]
    nothing = numpy.zeros(0, numpy.int64)
    tokens = tuple(tokens for tokens, _ in pieces)
    return Corpus(tokens, starts, numpy.concatenate([nothing, *ends]), 0, int(starts[-1]))


def corpus_of_documents(documents: Iterable[Sequence[int]]) -> Corpus:
    """A corpus in memory, of documents of token ids."""
    arrays = [numpy.asarray(document, numpy.int64) for document in documents]
    ends = numpy.cumsum([len(array) for array in arrays], dtype=numpy.int64)
    return corpus_of([(numpy.concatenate([numpy.zeros(0, numpy.int64), *arrays]), ends)])


def open_corpus(
    folder: Path, tokenizer: Tokenizer | None = None, *, verify: bool = True
) -> tuple[Corpus, Manifest]:
    """The shards that `prepare` wrote in a folder.

    Args:
        folder: where they are.
        tokenizer: the one that they are to be trained with, compared with the one that made them.
        verify: compare each shard with its hash, which reads it once.

    Raises:
        FileNotFoundError: there is no manifest, or a shard is missing.
        ValueError: preparation is not finished, a shard is damaged or changed, or another tokenizer
            made them; the message names the file.
    """
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise ValueError(
            f"the shards in '{folder}' are not finished: run the same `limner data prepare` again, "
            "which goes on where it stopped"
        )
    if tokenizer is not None:
        require_tokenizer(manifest.tokenizer, tokenizer, folder)
    pieces = [
        _open_shard(folder / shard.file, shard, manifest, verify) for shard in manifest.shards
    ]
    return corpus_of(pieces), manifest


def require_tokenizer(made_by: TokenizerIdentity, tokenizer: Tokenizer, folder: Path) -> None:
    """ValueError if `tokenizer` is another than the one that made the shards."""
    own = identify(tokenizer)
    if own != made_by:
        raise ValueError(
            f"'{folder}' was made by another tokenizer (hash {made_by.hash[:12]}, "
            f"{made_by.vocabulary} tokens) than this one (hash {own.hash[:12]}, {own.vocabulary} "
            "tokens): prepare the data with this tokenizer, or use the one beside the shards"
        )


def _open_shard(path: Path, shard: Shard, manifest: Manifest, verify: bool) -> Piece:
    if not path.is_file():
        raise FileNotFoundError(f"the shard {path} is missing: prepare the data again")
    dtype = numpy.dtype(manifest.dtype).newbyteorder("<")
    places = shard_places(shard.tokens, dtype)
    expected = places + 8 * shard.documents
    if path.stat().st_size != expected:
        problem = f"it has {path.stat().st_size} bytes instead of {expected}"
        raise ValueError(f"the shard {path} is damaged: {problem}: prepare the data again")
    if verify and hash_file(path) != shard.hash:
        raise ValueError(
            f"the shard {path} has changed since it was made (its hash is another): "
            "prepare the data again"
        )
    tokens = numpy.memmap(path, dtype, "r", shape=(shard.tokens,))
    ends = numpy.fromfile(path, "<i8", shard.documents, offset=places)
    return tokens, ends


def shard_places(tokens: int, dtype: numpy.dtype[Any]) -> int:
    """Where in a shard of so many tokens the document ends begin, in bytes."""
    return -(-tokens * dtype.itemsize // 8) * 8


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lengths(corpus: Corpus) -> list[int]:
    """Tokens of each document."""
    return [end - start for start, end in pairwise([0, *corpus.document_ends().tolist()])]
