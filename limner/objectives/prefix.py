"""Prefix language modelling: the beginning is read from both sides (Raffel et al. 2020, 3.2.1).

B batch, T time, D width.
"""

from __future__ import annotations

from itertools import pairwise

import numpy
import torch
from torch import Tensor, nn

from limner.data.batches import Batch
from limner.data.corpus import Integers
from limner.data.noise import Booleans
from limner.data.rows import NO_DOCUMENT
from limner.models.decoder import Decoder
from limner.nn.scoring import Scoring
from limner.nn.state import Documents
from limner.objectives.cross_entropy import cross_entropy
from limner.objectives.loss import Loss


class PrefixedDocuments(Documents):
    """Documents whose first tokens see one another in both directions; the rest see back.

    `prefix` (B, T) bool is where those first tokens stand.
    """

    def __init__(self, documents: Tensor, prefix: Tensor) -> None:
        super().__init__(documents)
        self.own, self.prefix = documents, prefix

    def visible(self, scoring: Scoring, index: Tensor) -> Tensor | None:
        """What is seen otherwise, and the whole prefix of the own document."""
        seen = super().visible(scoring, index)
        same = self.own[:, :, None] == self.own[:, None, :]
        prefix = (same & self.prefix[:, None, :])[:, None]  # (B, 1, T, T)
        return None if seen is None else seen | prefix


class PrefixLanguageModel:
    """Read a beginning from both sides, and predict the rest of the document from left to right.

    Where the beginning ends is drawn uniformly for each document, by its row's seed.
    """

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Cross-entropy of the tokens behind the prefixes."""
        assert isinstance(network, Decoder)
        prefix = self.prefix(batch)
        hidden = network(batch.tokens, state=PrefixedDocuments(batch.documents, prefix))
        # The last token of the prefix predicts the first behind it; those before have seen theirs.
        inside = torch.zeros_like(prefix)
        inside[:, :-1] = prefix[:, :-1] & prefix[:, 1:]
        inside[:, :-1] &= batch.documents[:, :-1] == batch.documents[:, 1:]
        return cross_entropy(network.head, hidden, batch.targets, batch.weights * ~inside)

    def prefix(self, batch: Batch) -> Tensor:
        """Where prefixes stand, (B, T) bool."""
        rows = zip(batch.documents.cpu().numpy(), batch.seeds, strict=True)
        prefix = numpy.stack([self._row(documents, seed) for documents, seed in rows])
        return torch.from_numpy(prefix).to(batch.documents.device)

    def _row(self, documents: Integers, seed: int) -> Booleans:
        random = numpy.random.default_rng(seed)
        prefix = numpy.zeros(len(documents), numpy.bool_)
        cuts = numpy.flatnonzero(numpy.diff(documents)) + 1
        starts = [0, *cuts.tolist(), len(documents)]
        for start, end in pairwise(starts):
            if documents[start] != NO_DOCUMENT:
                prefix[start : start + int(random.integers(1, max(end - start, 2)))] = True
        return prefix
