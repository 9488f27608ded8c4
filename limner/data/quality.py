"""Whether a text reads like something to learn from: the field's rules, each by its name.

A rule is a measure of a document and the least and most that it may be. The presets are those of
Gopher (Rae et al. 2021, table A1), C4 (Raffel et al. 2020), and for source code of Codex and The
Stack (Chen et al. 2021; Kocetkov et al. 2022).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy
from numpy.typing import NDArray

from limner.config import Settings
from limner.data.overlap import Hashes, run_hashes

#: The least and the most a measure may be; null is no limit.
Bounds = tuple[float | None, float | None]
FREE: Bounds = (None, None)

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = ("•", "‣", "▶", "◀", "◦", "■", "□", "▪", "▫", "–", "-", "*")
SENTENCES = re.compile(r"[.!?…][\"'”’»)\]]*(?=\s|$)")
NOT_LETTERS = "\"'.,;:!?()[]{}“”‘’«»"

PRESETS: dict[str, dict[str, Bounds]] = {
    "none": {},
    "gopher": {
        "words": (50, 100_000),
        "mean_word_length": (3, 10),
        "symbol_ratio": (None, 0.1),
        "bullet_lines": (None, 0.9),
        "ellipsis_lines": (None, 0.3),
        "alphabetic_words": (0.8, None),
        "stop_words": (2, None),
        "duplicate_lines": (None, 0.3),
        "duplicate_paragraphs": (None, 0.3),
        "duplicate_line_characters": (None, 0.2),
        "duplicate_paragraph_characters": (None, 0.2),
        "top_2_gram": (None, 0.2),
        "top_3_gram": (None, 0.18),
        "top_4_gram": (None, 0.16),
        "duplicate_5_grams": (None, 0.15),
        "duplicate_6_grams": (None, 0.14),
        "duplicate_7_grams": (None, 0.13),
        "duplicate_8_grams": (None, 0.12),
        "duplicate_9_grams": (None, 0.11),
        "duplicate_10_grams": (None, 0.1),
    },
    "c4": {"sentences": (3, None), "curly_brackets": (None, 0), "phrases": (None, 0)},
    "code": {
        "mean_line_length": (None, 100),
        "longest_line": (None, 1000),
        "alphanumeric": (0.25, None),
    },
}


class Quality(Settings):
    """The rules: a preset's, and on top of them any bounds, such as `words: [20, null]`."""

    preset: Literal["none", "gopher", "c4", "code"] = "none"
    """whose rules to begin with"""
    characters: Bounds = FREE
    """characters of a document"""
    words: Bounds = FREE
    """words, which are what spaces separate"""
    mean_word_length: Bounds = FREE
    """characters a word"""
    symbol_ratio: Bounds = FREE
    """hash signs a word, or ellipses, whichever are more"""
    bullet_lines: Bounds = FREE
    """share of the lines that begin with a bullet"""
    ellipsis_lines: Bounds = FREE
    """share of the lines that end in an ellipsis"""
    alphabetic_words: Bounds = FREE
    """share of the words with a letter in them"""
    stop_words: Bounds = FREE
    """how many different ones of stop_word_list there are"""
    stop_word_share: Bounds = FREE
    """share of the words that are in stop_word_list"""
    duplicate_lines: Bounds = FREE
    """share of the lines that stood there before"""
    duplicate_paragraphs: Bounds = FREE
    """share of the paragraphs that stood there before"""
    duplicate_line_characters: Bounds = FREE
    """share of the characters that are in such lines"""
    duplicate_paragraph_characters: Bounds = FREE
    """share of the characters that are in such paragraphs"""
    top_2_gram: Bounds = FREE
    """share of the characters in the most frequent two words, if they recur"""
    top_3_gram: Bounds = FREE
    """of three words"""
    top_4_gram: Bounds = FREE
    """of four words"""
    duplicate_5_grams: Bounds = FREE
    """share of the characters in runs of five words that stood there before"""
    duplicate_6_grams: Bounds = FREE
    """of six words"""
    duplicate_7_grams: Bounds = FREE
    """of seven words"""
    duplicate_8_grams: Bounds = FREE
    """of eight words"""
    duplicate_9_grams: Bounds = FREE
    """of nine words"""
    duplicate_10_grams: Bounds = FREE
    """of ten words"""
    sentences: Bounds = FREE
    """ends of sentences"""
    curly_brackets: Bounds = FREE
    """opening curly brackets"""
    phrases: Bounds = FREE
    """how often the phrases of phrase_list stand there"""
    mean_line_length: Bounds = FREE
    """characters a line"""
    longest_line: Bounds = FREE
    """characters of the longest line"""
    alphanumeric: Bounds = FREE
    """share of the characters that are letters or digits"""
    stop_word_list: tuple[str, ...] = STOP_WORDS
    """small words of the language; English by default"""
    phrase_list: tuple[str, ...] = ("lorem ipsum",)
    """in lower case"""

    @cached_property
    def rules(self) -> list[tuple[str, Bounds]]:
        """The measures that have a bound, in the order of the settings."""
        own = {name: getattr(self, name) for name in self.model_fields_set & MEASURES.keys()}
        bounds = {name: (PRESETS[self.preset] | own).get(name, FREE) for name in MEASURES}
        return [(name, bound) for name, bound in bounds.items() if bound != FREE]


@dataclass(frozen=True)
class Document:
    """A text and its parts, each found when first asked for. W words."""

    text: str
    quality: Quality

    @cached_property
    def words(self) -> list[str]:
        """What spaces separate."""
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not empty, without spaces at their ends."""
        return [line.strip() for line in self.text.split("\n") if line.strip()]

    @cached_property
    def paragraphs(self) -> list[str]:
        """What empty lines separate."""
        return [part.strip() for part in re.split(r"\n\s*\n", self.text) if part.strip()]

    @cached_property
    def plain_words(self) -> list[str]:
        """In lower case, without punctuation around them."""
        return [word.strip(NOT_LETTERS) for word in self.text.lower().split()]

    @cached_property
    def lengths(self) -> NDArray[numpy.int64]:
        """Characters of each word, (W,)."""
        return numpy.array([len(word) for word in self.words], numpy.int64)

    @cached_property
    def numbers(self) -> NDArray[numpy.int64]:
        """A number for each word, the same for the same word, (W,)."""
        known: dict[str, int] = {}
        return numpy.array([known.setdefault(word, len(known)) for word in self.words], numpy.int64)

    def grams(self, length: int) -> Hashes:
        """A hash of each run of `length` words, (W - length + 1,)."""
        return run_hashes(self.numbers, length)


def share(part: float, whole: float) -> float:
    """The part's share; 0 of nothing."""
    return part / whole if whole else 0.0


def symbol_ratio(document: Document) -> float:
    """Hash signs or ellipses a word."""
    text = document.text
    symbols = max(text.count("#"), text.count("...") + text.count("…"))
    return share(symbols, len(document.words))


def bullet_lines(document: Document) -> float:
    """The share of lines that begin with a bullet."""
    return share(sum(line.startswith(BULLETS) for line in document.lines), len(document.lines))


def ellipsis_lines(document: Document) -> float:
    """The share of lines that end in an ellipsis."""
    return share(sum(line.endswith(("...", "…")) for line in document.lines), len(document.lines))


def alphabetic_words(document: Document) -> float:
    """The share of words with a letter in them."""
    return share(sum(any(map(str.isalpha, w)) for w in document.words), len(document.words))


def stop_words(document: Document) -> float:
    """How many different stop words there are."""
    return len(set(document.quality.stop_word_list).intersection(document.plain_words))


def stop_word_share(document: Document) -> float:
    """The share of words that are stop words."""
    wanted = set(document.quality.stop_word_list)
    return share(sum(word in wanted for word in document.plain_words), len(document.words))


def repeated(parts: list[str]) -> float:
    """The share of parts that stood there before."""
    return share(len(parts) - len(set(parts)), len(parts))


def repeated_characters(parts: list[str]) -> float:
    """The share of characters in parts that stood there before."""
    whole = sum(map(len, parts))
    return share(whole - sum(map(len, set(parts))), whole)


def top_gram(length: int, document: Document) -> float:
    """The share of a document's characters in its most frequent run of `length` words."""
    grams = document.grams(length)
    if not len(grams):
        return 0.0
    _, first, counts = numpy.unique(grams, return_index=True, return_counts=True)
    most = int(counts.max())
    if most == 1:
        return 0.0
    start = int(first[counts == most].min())
    characters = int(document.lengths[start : start + length].sum())
    # Runs that overlap themselves, as in "no no no", would count more than there is.
    return min(share(most * characters, int(document.lengths.sum())), 1.0)


def duplicate_grams(length: int, document: Document) -> float:
    """The share of characters in runs of `length` words that stood there before.

    Each character counts once, however many runs it is in.
    """
    grams = document.grams(length)
    again = numpy.ones(len(grams), bool)
    again[numpy.unique(grams, return_index=True)[1]] = False
    covered = numpy.zeros(len(document.words), bool)
    for offset in range(length if again.any() else 0):
        covered[offset : offset + len(again)] |= again
    return share(int(document.lengths[covered].sum()), int(document.lengths.sum()))


def phrases(document: Document) -> float:
    """How often the unwanted phrases stand there."""
    text = document.text.lower()
    return sum(text.count(phrase) for phrase in document.quality.phrase_list)


MEASURES: Mapping[str, Callable[[Document], float]] = {
    "characters": lambda document: len(document.text),
    "words": lambda document: len(document.words),
    "mean_word_length": lambda d: share(sum(map(len, d.words)), len(d.words)),
    "symbol_ratio": symbol_ratio,
    "bullet_lines": bullet_lines,
    "ellipsis_lines": ellipsis_lines,
    "alphabetic_words": alphabetic_words,
    "stop_words": stop_words,
    "stop_word_share": stop_word_share,
    "duplicate_lines": lambda document: repeated(document.lines),
    "duplicate_paragraphs": lambda document: repeated(document.paragraphs),
    "duplicate_line_characters": lambda document: repeated_characters(document.lines),
    "duplicate_paragraph_characters": lambda document: repeated_characters(document.paragraphs),
    **{f"top_{length}_gram": partial(top_gram, length) for length in (2, 3, 4)},
    **{f"duplicate_{length}_grams": partial(duplicate_grams, length) for length in range(5, 11)},
    "sentences": lambda document: len(SENTENCES.findall(document.text)),
    "curly_brackets": lambda document: document.text.count("{"),
    "phrases": phrases,
    "mean_line_length": lambda d: share(sum(map(len, d.lines)), len(d.lines)),
    "longest_line": lambda document: max(map(len, document.lines), default=0),
    "alphanumeric": lambda d: share(sum(map(str.isalnum, d.text)), len(d.text)),
}


def judge(text: str, quality: Quality) -> tuple[str, str] | None:
    """The first rule that a text breaks, and how; None if it keeps them all."""
    document = Document(text, quality)
    for name, (least, most) in quality.rules:
        value = MEASURES[name](document)
        if least is not None and value < least:
            return name, f"{value:.4g} is below {least:g}"
        if most is not None and value > most:
            return name, f"{value:.4g} is above {most:g}"
    return None
