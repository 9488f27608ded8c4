"""Reading and examining a source on all machines of a Ray cluster (Moritz et al. 2018).

The machines run the same functions as a single process does, and documents come back in the order
of the source, so the shards are the same to the byte. The files must be where every machine
finds them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy

from limner.data import preparing
from limner.data.deduplication import Signature
from limner.data.extra import cluster
from limner.data.filtering import Examined, Examiner, Refusal
from limner.data.sources import SerialSource, Source

#: Documents that a worker hands on or examines together.
TOGETHER = 64
Columns = dict[str, Any]


class ClusterReader:
    """Reads and examines on a cluster: a `Reader` for `prepare`, which encodes.

    The cluster is the one at RAY_ADDRESS, or one of this machine's cores.

    Raises ValueError if Ray is not installed.
    """

    def __call__(self, source: Source, examiner: Examiner) -> Iterator[list[Examined]]:
        """Examined documents; the source then stands after those given."""
        if not isinstance(source, SerialSource):
            kind = type(source).__name__
            raise ValueError(f"'{source.name}' is a {kind}: a cluster reads a SerialSource")
        with cluster("ray.data", "preparing on a cluster") as ray:
            yield from in_batches(source, self.rows(ray, source, examiner))

    def rows(self, ray: Any, source: SerialSource, examiner: Examiner) -> Iterator[Columns]:
        """One row a document, in the order of the source."""
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # else it tells of every stage
        context.execution_options.preserve_order = True
        items = [{"item": item} for item in range(source.item, len(source.items))]
        work = _Work(source, source.item, source.document, examiner)
        if items:
            # Another share of a processor than examining, or Ray makes one task of both for a file.
            documents = ray.data.from_items(items).map_batches(
                work.read, batch_size=1, num_cpus=0.25
            )
            yield from documents.map_batches(work.examine, batch_size=TOGETHER).iter_rows()


@dataclass(frozen=True)
class _Work:
    """What every worker needs."""

    source: SerialSource
    first: int
    skipped: int
    examiner: Examiner

    def read(self, columns: Columns) -> Iterator[Columns]:
        """The documents of an item, with what the source's state is after each."""
        for item in columns["item"].tolist():
            start = self.skipped if item == self.first else 0
            documents = enumerate(self.source.read(self.source.items[item]), 1)
            rest = ((number, text) for number, text in islice(documents, start, None) if text)
            while gathered := list(islice(rest, TOGETHER)):
                yield {
                    "item": numpy.full(len(gathered), item),
                    "document": numpy.array([number for number, _ in gathered]),
                    "text": numpy.array([text for _, text in gathered], object),
                }

    def examine(self, columns: Columns) -> Columns:
        """What is found in some documents."""
        texts = [str(text) for text in columns["text"]]
        examined = self.examiner(texts)
        return {
            "item": columns["item"],
            "document": columns["document"],
            "characters": numpy.array([len(text) for text in texts]),
            "text": numpy.array([one.text for one in examined], object),
            "size": numpy.array([one.size for one in examined]),
            "said": numpy.array([_said(one) for one in examined], object),
            "key": numpy.array([one.key for one in examined], object),
            "signature": numpy.array([_packed(one.signature) for one in examined], object),
        }


def _packed(signature: Signature | None) -> bytes:
    return b"" if signature is None else signature.astype("<u4").tobytes()


def _said(one: Examined) -> str:
    refusal = None if one.refusal is None else [one.refusal.reason, one.refusal.detail]
    return json.dumps([refusal, one.noted])


def in_batches(source: SerialSource, rows: Iterator[Columns]) -> Iterator[list[Examined]]:
    """Documents in the batches in which a single process would read them."""
    total = len(source.items)
    examined: list[Examined] = []
    characters = 0
    for row in rows:
        examined.append(_examined(row))
        characters += int(row["characters"])
        if characters >= preparing.BATCH_CHARACTERS:
            place = {"item": int(row["item"]), "document": int(row["document"])}
            source.load_state_dict({"items": total, **place})
            yield examined
            examined, characters = [], 0
    source.load_state_dict({"items": total, "item": total, "document": 0})
    if examined:
        yield examined


def _examined(row: Columns) -> Examined:
    refusal, noted = json.loads(row["said"])
    signature = numpy.frombuffer(row["signature"], "<u4")
    return Examined(
        text=row["text"],
        size=int(row["size"]),
        refusal=Refusal(*refusal) if refusal else None,
        noted=tuple((name, size) for name, size in noted),
        key=row["key"],
        signature=signature if len(signature) else None,
    )
