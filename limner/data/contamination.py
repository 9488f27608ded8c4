"""Whether a document holds what a model is later to be tested with, by runs of words.

Words are compared in lower case and without punctuation, in runs of 13 as GPT-3's authors did
(Brown et al. 2020, appendix C). Memory grows with the evaluation texts, not with the corpus.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy
from numpy.typing import NDArray
from pydantic import Field

from limner.config import Settings
from limner.data.files import find_files
from limner.data.overlap import Hashes, places_in, run_hashes
from limner.data.records import is_table, read_records
from limner.data.sources import read_documents

WORD = re.compile(r"\w+")


class Contamination(Settings):
    """The evaluation sets that a corpus must not hold."""

    against: tuple[str, ...] = ()
    """files, folders or globs of evaluation sets: every text in a record of JSON lines or Parquet,
    every line of other files"""
    length: int = Field(default=13, ge=2)
    """words in a row that must not stand in both"""
    shortest: int = Field(default=8, ge=2)
    """a text of fewer words than length counts as one run, if it has so many"""
    action: Literal["refuse", "report"] = "refuse"
    """leave such documents out, or count them"""


class EvaluationRuns:
    """The runs of words of evaluation texts.

    `texts` is how many were given, `too_short` how many of them are shorter than `shortest` words
    and cannot be told from chance.
    """

    def __init__(self, texts: Iterable[str], length: int = 13, shortest: int = 8) -> None:
        self.numbers: dict[str, int] = {}
        self.texts = self.too_short = 0
        gathered: dict[int, list[Hashes]] = {}
        for text in texts:
            words = WORD.findall(text.lower())
            size = min(length, len(words))
            self.texts += 1
            if size < min(shortest, length):
                self.too_short += 1
                continue
            ids = [self.numbers.setdefault(word, len(self.numbers) + 1) for word in words]
            telling = [tells(words[start : start + size]) for start in range(len(words) - size + 1)]
            gathered.setdefault(size, []).append(run_hashes(numpy.array(ids), size)[telling])
        self.runs = {
            size: numpy.unique(numpy.concatenate(hashes)) for size, hashes in gathered.items()
        }

    def find(self, text: str) -> str | None:
        """The first of the longest runs of words that stand in the text and in an evaluation."""
        words = WORD.findall(text.lower())
        ids = numpy.array([self.numbers.get(word, 0) for word in words], numpy.int64)
        for size in sorted(self.runs, reverse=True):
            start = self._first(ids, size)
            if start is not None:
                return " ".join(words[start : start + size])
        return None

    def hash(self) -> str:
        """What tells these runs from others."""
        parts = hashlib.blake2b(digest_size=16)
        for size in sorted(self.runs):
            parts.update(size.to_bytes(4, "little") + self.runs[size].astype("<u8").tobytes())
        return parts.hexdigest()

    def _first(self, ids: NDArray[numpy.int64], size: int) -> int | None:
        hashes = run_hashes(ids, size)
        shared = self.runs[size][places_in(self.runs[size], hashes)]
        return int(numpy.isin(hashes, shared).argmax()) if len(shared) else None


def tells(run: Sequence[str]) -> bool:
    """Whether a run of words is worth looking for: half of them different, and no mere numbers.

    "1 2 3 4 5 ..." stands in many texts that have nothing to do with one another.
    """
    return 2 * len({word for word in run if not word.isdigit()}) >= len(run)


def read_evaluations(settings: Contamination) -> EvaluationRuns:
    """The runs of all evaluation sets.

    Raises FileNotFoundError if a pattern means no file, ValueError if all texts are too short.
    """
    texts = evaluation_texts(settings.against)
    runs = EvaluationRuns(texts, settings.length, settings.shortest)
    if not runs.runs:
        raise ValueError(
            f"contamination.against: {', '.join(settings.against)} holds no text of "
            f"{settings.shortest} words or more: lower contamination.shortest"
        )
    return runs


def evaluation_texts(patterns: Sequence[str]) -> Iterator[str]:
    """Every text in the records of evaluation sets, and every line of files that hold none.

    Raises FileNotFoundError if a pattern means no file.
    """
    for path in find_files(patterns):
        if is_table(path):
            for record in read_records(path):
                yield from _strings(record)
        else:
            yield from filter(None, read_documents(path, unit="line"))


def _strings(value: Any) -> Iterator[str]:
    """All texts in a record, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
