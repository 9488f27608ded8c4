"""Batches: rows as tensors, with what each place is to predict.

B batch, T time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy
import torch
from torch import Tensor

from limner.data.rows import NO_DOCUMENT, Row


@dataclass(frozen=True)
class Batch:
    """Rows of documents.

    `targets` (B, T) are the tokens that follow; `weights` (B, T) are 1 where the token that follows
    is of the same document, EOS included, and 0 elsewhere, so that no document is predicted from
    another. `documents` (B, T) numbers the document of each token, NO_DOCUMENT at padding.
    `seeds` (B,) are those of each row's noise, so that noise does not depend on batch-mates.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    documents: Tensor
    seeds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def mask(self) -> Tensor:
        """Where tokens are no padding, (B, T) bool."""
        return self.documents != NO_DOCUMENT

    @property
    def mixed(self) -> bool:
        """Whether a row holds several documents, padding at its end not counted."""
        first = self.documents[:, :1]
        return bool(((self.documents != first) & self.mask).any())

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        return self.each(lambda tensor: tensor.to(device), self.seeds)

    def split(self, rows: int) -> Iterator[Batch]:
        """The batch in parts of at most `rows` rows."""
        for start in range(0, len(self), rows):
            yield self.part(slice(start, start + rows))

    def part(self, rows: slice) -> Batch:
        """Some of the rows."""
        return self.each(lambda tensor: tensor[rows], self.seeds[rows])

    def each(self, change: Callable[[Tensor], Tensor], seeds: tuple[int, ...]) -> Batch:
        """The batch with every tensor changed."""
        tokens, targets = change(self.tokens), change(self.targets)
        return Batch(tokens, targets, change(self.weights), change(self.documents), seeds)


def collate(rows: Sequence[Row]) -> Batch:
    """Rows of T + 1 tokens as a batch of T places."""
    tokens = torch.from_numpy(numpy.stack([row.tokens for row in rows]))  # (B, T + 1)
    documents = torch.from_numpy(numpy.stack([row.documents for row in rows]))
    same = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] != NO_DOCUMENT)
    return Batch(
        tokens=tokens[:, :-1].contiguous(),
        targets=tokens[:, 1:].contiguous(),
        weights=same.float(),
        documents=documents[:, :-1].contiguous(),
        seeds=tuple(row.seed for row in rows),
    )


def batches(rows: Iterable[Row], size: int) -> Iterator[Batch]:
    """Batches of `size` rows; the last may have fewer."""
    source = iter(rows)
    while gathered := list(islice(source, size)):
        yield collate(gathered)
