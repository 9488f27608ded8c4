"""Span corruption: T5's objective (Raffel et al. 2020)."""

from __future__ import annotations

import numpy
from torch import nn

from limner.data.batches import Batch
from limner.data.corpus import Integers
from limner.data.noise import choose_spans, corrupt_spans
from limner.objectives.loss import Loss
from limner.objectives.sequence_to_sequence import Text, texts, translation_loss
from limner.objectives.vocabulary import sentinels, special_tokens
from limner.tokenizers import Tokenizer


class SpanCorruption:
    """Read a text with a sentinel in place of each missing span; write the spans.

    The target is each sentinel with its span, and a closing sentinel. Rows should hold one document
    each (`PaddedRows`). Raises ValueError if the tokenizer has no sentinels, or a row needs more.
    """

    def __init__(self, tokenizer: Tokenizer, share: float = 0.15, mean_length: float = 3.0) -> None:
        self.sentinels, self.special = sentinels(tokenizer), special_tokens(tokenizer)
        self.share, self.mean_length = share, mean_length

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Cross-entropy of the missing spans and their sentinels."""
        pairs = [self.corrupt(text) for text in texts(batch, self.special)]
        sources, targets = zip(*pairs, strict=True)
        return translation_loss(network, sources, targets)

    def corrupt(self, text: Text) -> tuple[Integers, Integers]:
        """The source and the target of a text, both ended as the text is."""
        random = numpy.random.default_rng(text.seed)
        spans = choose_spans(len(text.body), random, self.share, self.mean_length)
        source, target = corrupt_spans(text.body, spans, self.sentinels)
        framed = numpy.concatenate([text.before, source, text.after])
        return framed, numpy.concatenate([target, text.after])
