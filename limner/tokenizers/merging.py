"""Merges of byte-level BPE learnt by gigatok, where it learns what `tokenizers` would.

`tokenizers` spends most of its time on cutting text into words. gigatok does that with code of its
own and takes a fifth of the time, but is not believed: both learn from part of the texts, and from
words around every character of them all, and must cut the same words and come to the same merges.
Where they do not, or gigatok is not installed, `tokenizers` does all of the work.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from limner.tokenizers.bulk import HARD
from limner.tokenizers.decoding import byte_alphabet
from limner.tokenizers.merging_process import END

_log = logging.getLogger(__name__)

#: Bytes of text between which gigatok is asked: it takes a while to start, and holds all in memory.
LEAST, MOST = 4_000_000, 200_000_000
#: Bytes for each merge: less text seldom has as many words as gigatok needs.
BYTES = 500
#: Pieces of the texts from which both learn, and how many merges.
COMPARED, MERGES = 16, 500

Merge = tuple[str, str]


class _Learnt(NamedTuple):
    """What gigatok found."""

    words: dict[str, int]
    """how often there is each"""
    merges: list[Merge]
    """each byte spelled as its letter"""


class _UnfitError(Exception):
    """Why gigatok does not do it."""


def byte_trainer(size: int, specials: list[str], *, show: bool = False) -> trainers.BpeTrainer:
    """The trainer of `tokenizers` for byte-level BPE."""
    return trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=_alphabet(),
        show_progress=show,
    )


def fast_model(
    pieces: Iterable[str], size: int, specials: list[str], *, count: int, text_bytes: int
) -> models.BPE | None:
    """What `tokenizers` learns from about `count` pieces with GPT-2's words, or None.

    The pieces may have been read when it is None; the log then says why.
    """
    wanted = size - len(specials) - len(_alphabet())
    if not max(LEAST, BYTES * wanted) <= text_bytes <= MOST:
        return None
    if importlib.util.find_spec("gigatok") is None:
        return None
    sample: list[str] = []
    try:
        learnt = _learn(_noting(pieces, max(count // COMPARED, 1), sample), wanted)
        _require_sound(learnt, wanted, specials)
        _require_equal([*HARD, *sample, *_around(set("".join(learnt.words)))])
    except _UnfitError as reason:
        _log.info("gigatok does not learn the merges: %s", reason)
        return None
    _log.info("gigatok learnt the merges")
    names = [*specials, *_alphabet(), *map("".join, learnt.merges)]
    return models.BPE({name: number for number, name in enumerate(names)}, learnt.merges)


def _learn(pieces: Iterable[str], wanted: int) -> _Learnt:
    """Up to so many merges of the pieces' words by gigatok, in a process of its own."""
    script = Path(__file__).with_name("merging_process.py")
    command = [sys.executable, "-P", str(script), str(wanted)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            # Broken if the process has ended already, which its code tells.
            with contextlib.suppress(BrokenPipeError), process.stdin as texts:
                for piece in pieces:
                    texts.write(piece.encode() + END)
            answer = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise _UnfitError(f"its process ended with code {process.returncode}")
    told = json.loads(answer)
    letters = {chr(byte): letter for letter, byte in byte_alphabet().items()}
    spelled = str.maketrans(letters)
    merges = [(left.translate(spelled), right.translate(spelled)) for left, right in told["merges"]]
    return _Learnt(told["words"], merges)


def _noting(pieces: Iterable[str], every: int, sample: list[str]) -> Iterator[str]:
    """The pieces; some are added to the sample."""
    for number, piece in enumerate(pieces):
        if number % every == 0:
            sample.append(piece)
        yield piece


def _around(characters: Iterable[str]) -> Iterator[str]:
    """Texts that are cut otherwise if a character is taken for a letter, number, space or mark."""
    return (f"a {letter}{letter}b1{letter} {letter}" for letter in characters)


def _require_sound(learnt: _Learnt, wanted: int, specials: list[str]) -> None:
    # While words are more than merges some word is in parts still, so that the last merge joins
    # something. Later gigatok goes on with pairs that are nowhere, where tokenizers ends.
    if len(learnt.merges) != wanted:
        raise _UnfitError(f"{len(learnt.words)} words are too few")
    # tokenizers gives a token that is made twice one number; gigatok is not known to.
    if len({*map("".join, learnt.merges), *specials}) != wanted + len(specials):
        raise _UnfitError("a token would be made twice")


def _require_equal(texts: list[str]) -> None:
    """_UnfitError unless both cut these texts into the same words, and merge the same pairs."""
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.train_from_iterator(texts, byte_trainer(len(_alphabet()) + MERGES, []))
    right = [tuple(pair) for pair in json.loads(engine.to_str())["model"]["merges"]]
    cut = engine.pre_tokenizer.pre_tokenize_str
    words = Counter(text[start:end] for text in texts for _, (start, end) in cut(text))
    if _learn(texts, MERGES) != (words, right):
        raise _UnfitError("it has other words or merges for some of the texts")


def _alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())
