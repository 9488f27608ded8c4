"""Span corruption: T5's objective (Raffel et al. 2020)."""

from __future__ import annotations

import numpy
from torch import nn

from limner.data.batches import Batch
from limner.data.corpus import Integers
from limner.data.noise import Random, Span, choose_spans, corrupt_spans
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
        chosen = choose_spans(len(text.body), random, self.share, self.mean_length)
        spans = move_spans(chosen, random)
        source, target = corrupt_spans(text.body, spans, self.sentinels)
        framed = numpy.concatenate([text.before, source, text.after])
        return framed, numpy.concatenate([target, text.after])


def move_spans(spans: list[Span], random: Random) -> list[Span]:
    """Spans moved together towards the start of the text, anything from not at all to all the way.

    As T5 chooses them the last always ends the text, and a short text, which has but one, would
    never lose anything else. T5's own remedy, `random_roll`, can also cut a span in two.
    """
    if not spans:
        return spans
    step = int(random.integers(spans[0][0] + 1))
    return [(start - step, end - step) for start, end in spans]
