"""Documents that have been seen before: exactly, or nearly by MinHash (Broder 1997).

Memory grows with the documents kept: 0.12 kB each for exact duplicates; for near ones 4 bytes a
permutation and 0.23 kB a band more, which is 5.6 kB in all at the default settings (measured).

N documents, P permutations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray
from pydantic import Field

from limner.config import Settings
from limner.data.extra import import_extra
from limner.data.overlap import run_hashes

#: Bytes that stand for a text; among 10^12 texts the chance of two alike is 10^-15.
DIGEST = 16
#: Of the permutations; another would find other borderline cases.
SEED = 1

Signature = NDArray[numpy.uint32]


class NearDuplicates(Settings):
    """When two documents are nearly the same."""

    threshold: float = Field(default=0.8, gt=0, le=1)
    """share of their runs of words that both have, of those that either has (Jaccard)"""
    permutations: int = Field(default=128, ge=16)
    """numbers that stand for a document; the share is estimated to 0.5 / sqrt(permutations)"""
    run: int = Field(default=5, ge=1)
    """words of a run"""


def normalised(text: str) -> str:
    """The text without what copies differ in: case and white space."""
    return " ".join(text.lower().split())


def digest(text: str) -> bytes:
    """What stands for a normalised text, the same on every machine."""
    return hashlib.blake2b(normalised(text).encode(), digest_size=DIGEST).digest()


def signatures(texts: Sequence[str], settings: NearDuplicates) -> list[Signature]:
    """The MinHash of each text over its runs of words, (P,).

    Raises ValueError if rensa is not installed.
    """
    sketch = import_extra("rensa", "data", "finding near duplicates").RMinHash
    words = [normalised(text).split() for text in texts]
    hashed = sketch.hash_token_sets(words)
    # A text shorter than a run is one run.
    runs = [
        run_hashes(numpy.array(hashes, numpy.uint64), max(min(settings.run, len(hashes)), 1))
        for hashes in hashed
    ]
    ends = numpy.cumsum([0, *map(len, runs)])
    flat = numpy.concatenate([numpy.zeros(0, numpy.uint64), *runs])
    rows = sketch.digest_matrix_from_flat_token_hashes(
        flat, ends.tolist(), settings.permutations, SEED
    ).to_rows()
    return [numpy.array(row, numpy.uint32) for row in rows]


def choose_bands(settings: NearDuplicates) -> int:
    """Into how many bands a signature is cut.

    Two documents are compared if a band of theirs is equal. With B bands of R permutations, pairs
    of similarity s are by chance 1 - (1 - s^R)^B. The fewest bands are taken that miss less than
    one in a hundred pairs at the threshold: what is compared in vain is then told by the whole
    signature, so only misses matter.
    """
    for rows in range(settings.permutations, 0, -1):
        bands = settings.permutations // rows
        if (1 - settings.threshold**rows) ** bands < 0.01:
            return bands
    return settings.permutations


class Seen:
    """The documents kept so far.

    What is added depends on the order of documents alone, so that one pass gives the same result
    wherever it is done, and goes on from `state` as if it had not stopped.
    """

    def __init__(self, near: NearDuplicates | None = None) -> None:
        self.near = near
        self.digests: set[bytes] = set()
        self.signatures: list[Signature] = []
        self.bands: dict[bytes, list[int]] = {}
        self.count = 0 if near is None else choose_bands(near)

    def is_exact(self, key: bytes) -> bool:
        """Whether a document of this digest was kept."""
        return key in self.digests

    def similarity(self, signature: Signature) -> float:
        """How alike the most similar of the documents kept is that shares a band, at most 1."""
        found = {number for key in self._keys(signature) for number in self.bands.get(key, ())}
        if not found:
            return 0.0
        others = numpy.stack([self.signatures[number] for number in sorted(found)])
        return float((others == signature).mean(axis=1).max())

    def add(self, key: bytes, signature: Signature | None) -> None:
        """Remember a document that is kept."""
        self.digests.add(key)
        if signature is None:
            return
        for band in self._keys(signature):
            self.bands.setdefault(band, []).append(len(self.signatures))
        self.signatures.append(signature)

    def _keys(self, signature: Signature) -> Iterator[bytes]:
        width = len(signature) // self.count
        for band in range(self.count):
            part = signature[band * width : (band + 1) * width].tobytes()
            yield hashlib.blake2b(part, digest_size=12, salt=band.to_bytes(4, "little")).digest()


def pack(kept: Sequence[tuple[bytes, Signature | None]]) -> list[bytes]:
    """Digests and then signatures of documents, as a file holds them."""
    prints = [signature.astype("<u4").tobytes() for _, signature in kept if signature is not None]
    return [len(kept).to_bytes(8, "little"), *(key for key, _ in kept), *prints]


def unpack(content: bytes, near: NearDuplicates | None) -> Iterator[tuple[bytes, Any]]:
    """What `pack` packed."""
    count = int.from_bytes(content[:8], "little")
    ends = 8 + count * DIGEST
    keys = [content[start : start + DIGEST] for start in range(8, ends, DIGEST)]
    if near is None:
        yield from ((key, None) for key in keys)
    else:
        table = numpy.frombuffer(content, "<u4", offset=ends).reshape(count, near.permutations)
        yield from zip(keys, table, strict=True)
