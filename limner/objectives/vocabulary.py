"""What noise must know of a vocabulary: which tokens are special, and which stand for what."""

from __future__ import annotations

import numpy

from limner.data.corpus import Integers
from limner.tokenizers import Tokenizer

#: T5's names of its sentinels.
SENTINEL = "<extra_id_{}>"


def ordinary_tokens(tokenizer: Tokenizer) -> Integers:
    """Ids of all tokens that are not special."""
    ids = numpy.arange(tokenizer.vocabulary_size)
    return ids[~numpy.isin(ids, list(tokenizer.special_ids))]


def special_tokens(tokenizer: Tokenizer) -> Integers:
    """Ids of all special tokens."""
    return numpy.array(sorted(tokenizer.special_ids), numpy.int64)


def mask_token(tokenizer: Tokenizer) -> int:
    """The token that stands where something is to be guessed; ValueError if there is none."""
    if tokenizer.mask_id is None:
        raise ValueError(
            "the tokenizer has no mask_token, which this objective puts where something is to be "
            "guessed: name one in its tokenizer_config.json"
        )
    return tokenizer.mask_id


def sentinels(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens `<extra_id_0>`, `<extra_id_1>` ...; ValueError if there are none."""
    found: list[int] = []
    while (token := tokenizer.token_id(SENTINEL.format(len(found)))) is not None:
        found.append(token)
    if not found:
        raise ValueError(
            f"the tokenizer has no sentinels ({SENTINEL.format(0)} ...), which stand for the spans "
            "to be guessed: add them to it as special tokens"
        )
    return tuple(found)


def sentence_ends(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of the tokens that end sentences."""
    marks = (b".", b"!", b"?", "。".encode())
    spelled = ((token, tokenizer.spelling.later(token)) for token in ordinary_tokens(tokenizer))
    return frozenset(int(token) for token, text in spelled if text.rstrip().endswith(marks))
