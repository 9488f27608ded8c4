"""Examining documents in several processes of this machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain

from limner.data import preparing
from limner.data.filtering import Examined, Examiner
from limner.data.sources import Source

#: Documents handed to a process together.
TOGETHER = 64

_examiner: Examiner | None = None


@dataclass(frozen=True)
class WorkerReader:
    """Reads here and examines in `count` processes: a `Reader` for `prepare`."""

    count: int

    def __call__(self, source: Source, examiner: Examiner) -> Iterator[list[Examined]]:
        """Examined documents; the source then stands after those given."""
        # Forked, they would hold copies of threads' locks: the tokenizer encodes with threads.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            self.count, mp_context=context, initializer=_begin, initargs=(examiner,)
        ) as pool:
            for texts in preparing.batches_of_text(source):
                starts = range(0, len(texts), TOGETHER)
                parts = [texts[start : start + TOGETHER] for start in starts]
                yield list(chain.from_iterable(pool.map(_examine, parts)))


def _begin(examiner: Examiner) -> None:
    global _examiner  # noqa: PLW0603  sent once to each process, not with each call
    _examiner = examiner


def _examine(texts: Sequence[str]) -> list[Examined]:
    assert _examiner is not None
    return _examiner(texts)
