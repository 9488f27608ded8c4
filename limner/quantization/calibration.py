"""Texts that show a network its usual inputs.

T time.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from limner.data.sources import open_source
from limner.tokenizers import Tokenizer

#: One document in so many is held out, to measure on.
HELD_OUT = 8


class Texts(NamedTuple):
    """Documents to calibrate on, and others to measure on."""

    seen: list[str]
    held_out: list[str]


def split_texts(source: str) -> Texts:
    """The documents of a source (see `data.sources`), each eighth held out.

    Files of a single document are cut into paragraphs first. Raises as `open_source` does, and
    ValueError if there are too few documents to hold any out.
    """
    documents = list(open_source(source))
    if len(documents) < HELD_OUT:
        documents = list(open_source(source, unit="paragraph"))
    held_out = documents[HELD_OUT - 1 :: HELD_OUT]
    if not held_out:
        raise ValueError(
            f"'{source}' holds {len(documents)} texts, too few to calibrate and to measure on: "
            f"give at least {HELD_OUT}"
        )
    return Texts([d for n, d in enumerate(documents) if n % HELD_OUT != HELD_OUT - 1], held_out)


def rows(texts: Iterable[str], tokenizer: Tokenizer, count: int, length: int) -> list[Tensor]:
    """`count` rows (1, T) of `length` tokens from all over the texts, laid end to end.

    Fewer if the texts are too short; ValueError if they do not fill one row.
    """
    encoded = (tokenizer.encode(text + "\n\n", add_special_tokens=False) for text in texts)
    tokens = list(chain.from_iterable(encoded))
    whole = len(tokens) // length
    if not whole:
        raise ValueError(
            f"the calibration texts are {len(tokens)} tokens, less than a row of {length}: give "
            "more text, or shorter rows with length"
        )
    count = min(count, whole)
    starts = [number * whole // count * length for number in range(count)]
    return [torch.tensor([tokens[start : start + length]]) for start in starts]
