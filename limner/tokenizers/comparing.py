"""How well a tokenizer suits a text."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from limner.tokenizers.tokenizer import Tokenizer

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Measured:
    """What a tokenizer does to some texts."""

    kind: str
    vocabulary: int
    bytes_per_token: float
    fertility: float
    """tokens that share in a word, on average (Rust et al. 2021); a word is a run of letters,
    digits and underscores"""
    whole_words: float
    """share of the words that are one token"""
    restored: float
    """share of the texts that decode to what they were"""
    megabytes_per_second: float
    """text encoded, with all cores"""


def measure_tokenizer(tokenizer: Tokenizer, texts: Sequence[str]) -> Measured:
    """Encode and decode texts; ValueError if there are no words in them."""
    size = sum(len(text.encode()) for text in texts)
    started = time.perf_counter()
    encoded = tokenizer.encode_batch(texts, add_special_tokens=False)
    seconds = time.perf_counter() - started
    nothing = numpy.zeros(0, numpy.int64)
    tokens = numpy.concatenate([nothing, *(_tokens_of_words(tokenizer, text) for text in texts)])
    if not len(tokens):
        raise ValueError("the text has no words to compare on")
    pairs = zip(texts, encoded, strict=True)
    restored = [tokenizer.decode(ids, skip_special_tokens=False) == text for text, ids in pairs]
    return Measured(
        kind=tokenizer.kind,
        vocabulary=tokenizer.vocabulary_size,
        bytes_per_token=size / max(sum(map(len, encoded)), 1),
        fertility=float(tokens.mean()),
        whole_words=float((tokens == 1).mean()),
        restored=sum(restored) / len(texts),
        megabytes_per_second=size / 1e6 / seconds,
    )


def _tokens_of_words(tokenizer: Tokenizer, text: str) -> NDArray[numpy.int64]:
    """How many tokens share in each word; a token with several words in it counts for each."""
    words = numpy.array([match.span() for match in _WORD.finditer(text)], numpy.int64)
    placed = [(token.start, token.end) for token in tokenizer.plain.placed(text)]
    starts, ends = numpy.array(placed, numpy.int64).reshape(-1, 2).T
    words = words.reshape(-1, 2)
    first = numpy.searchsorted(ends, words[:, 0], side="right")
    behind = numpy.searchsorted(starts, words[:, 1], side="left")
    return behind - first
