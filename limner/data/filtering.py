"""Which documents of a source are trained on, and in what state.

What can be said of a document by itself (repairs, quality, contamination, personal data) the
`Examiner` says, in any process and any order. What depends on the documents before it (duplicates)
the `Sieve` decides in the order of the source. Nothing is left out without being counted.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field

from limner.config import Settings
from limner.data.cleaning import REPAIRS, RepairName, find_boilerplate, remove_boilerplate
from limner.data.contamination import Contamination, EvaluationRuns, read_evaluations
from limner.data.deduplication import (
    NearDuplicates,
    Seen,
    Signature,
    digest,
    pack,
    signatures,
    unpack,
)
from limner.data.manifest import Amount, Manifest
from limner.data.personal import Personal, find_personal, redact
from limner.data.quality import Quality, judge
from limner.data.sources import Source
from limner.files import write_whole

logger = logging.getLogger(__name__)

#: Documents from which lines that stand everywhere are learnt.
SAMPLE = 10_000


class Filters(Settings):
    """What is done to documents before they become tokens, in this order; by default nothing."""

    repair: tuple[RepairName, ...] = ()
    """encoding undoes broken encodings, control takes out control characters, html tags and
    entities, unicode makes spellings one (NFC), web_lines keeps lines that are sentences"""
    boilerplate: float | None = Field(default=None, gt=0, lt=1)
    """take out lines that begin or end more than this share of the documents"""
    quality: Quality = Quality()
    """rules for documents: quality.preset=gopher, c4 or code, and bounds of one's own"""
    contamination: Contamination = Contamination()
    """evaluation sets that must not be learnt: contamination.against=FILE"""
    personal: Personal = Personal()
    """personal data: personal.action=report, redact or refuse"""
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """exact leaves out documents that differ in case and spaces only, near also similar ones"""
    near: NearDuplicates = NearDuplicates()
    """how similar: near.threshold=0.8"""


@dataclass(frozen=True)
class Refusal:
    """Why a document is left out: the reason by name, and what was found."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Examined:
    """A document as it is after all repairs, with what was found.

    `noted` are repairs and findings, each with the bytes of text that it took out or found.
    """

    text: str
    size: int
    refusal: Refusal | None = None
    noted: tuple[tuple[str, int], ...] = ()
    key: bytes = b""
    signature: Signature | None = None


class Examiner:
    """All that can be said of documents one by one: the same wherever it is said."""

    def __init__(self, filters: Filters, boilerplate: frozenset[str] = frozenset()) -> None:
        self.filters, self.boilerplate = filters, boilerplate
        self.evaluations: EvaluationRuns | None = None
        if filters.contamination.against:
            self.evaluations = read_evaluations(filters.contamination)
            self._warn(self.evaluations)

    def _warn(self, evaluations: EvaluationRuns) -> None:
        if evaluations.too_short:
            logger.warning(
                "%d of %d evaluation texts have fewer than %d words and are not looked for",
                evaluations.too_short,
                evaluations.texts,
                self.filters.contamination.shortest,
            )

    def __call__(self, texts: Sequence[str]) -> list[Examined]:
        """Examine some documents."""
        examined = [self.examine(text) for text in texts]
        if self.filters.duplicates != "near":
            return examined
        places = [place for place, one in enumerate(examined) if one.refusal is None]
        prints = signatures([examined[place].text for place in places], self.filters.near)
        for place, signature in zip(places, prints, strict=True):
            examined[place] = replace(examined[place], signature=signature)
        return examined

    def examine(self, text: str) -> Examined:
        """Examine a document, up to the first thing that it is refused for."""
        size = len(text.encode())
        text, noted = self.repair(text)
        refusal = self.judge(text, noted)
        if refusal is None and self.filters.personal.action != "keep":
            text, refusal = self.protect(text, noted)
        key = b"" if refusal or self.filters.duplicates == "keep" else digest(text)
        return Examined(text, size, refusal, tuple(noted), key)

    def repair(self, text: str) -> tuple[str, list[tuple[str, int]]]:
        """The text after all repairs, and the bytes that each of them took out."""
        steps = [
            (f"repair.{name}", REPAIRS[name]) for name in REPAIRS if name in self.filters.repair
        ]
        if self.boilerplate:
            steps.append(("boilerplate", lambda text: remove_boilerplate(text, self.boilerplate)))
        noted = []
        for name, step in steps:
            before, text = text, step(text)
            if text != before:
                noted.append((name, len(before.encode()) - len(text.encode())))
        return text, noted

    def judge(self, text: str, noted: list[tuple[str, int]]) -> Refusal | None:
        """What the text is refused for as it stands, if anything."""
        if noted and not text.strip():
            return Refusal("empty", "repairs left nothing")
        broken = judge(text, self.filters.quality)
        if broken is not None:
            return Refusal(f"quality.{broken[0]}", broken[1])
        shared = self.evaluations.find(text) if self.evaluations is not None else None
        if shared is None:
            return None
        if self.filters.contamination.action == "refuse":
            return Refusal("contamination", f"shares: {shared}")
        noted.append(("contamination", len(text.encode())))
        return None

    def protect(self, text: str, noted: list[tuple[str, int]]) -> tuple[str, Refusal | None]:
        """The text without personal data, or why it is refused, as the settings ask."""
        personal = self.filters.personal
        found = find_personal(text, personal.kinds, personal.phone_regions)
        if found and personal.action == "refuse":
            first = found[0]
            return text, Refusal(f"personal.{first.kind}", text[first.start : first.end])
        sizes = [len(text[one.start : one.end].encode()) for one in found]
        noted += [(f"personal.{one.kind}", size) for one, size in zip(found, sizes, strict=True)]
        return (redact(text, found) if personal.action == "redact" else text), None


def learn_boilerplate(examiner: Examiner, source: Source) -> None:
    """Let the first documents of a source, which stays where it is, say what all of them repeat."""
    if examiner.filters.boilerplate is None:
        return
    start = source.state_dict()
    texts = (examiner.repair(text)[0] for text in islice(source, SAMPLE))
    examiner.boilerplate = find_boilerplate(texts, examiner.filters.boilerplate)
    source.load_state_dict(start)
    for line in sorted(examiner.boilerplate):
        logger.info("on every page: %s", line)


class Sieve:
    """Lets documents through in their order, and keeps account of those it holds back.

    Args:
        filters: what to do.
        manifest: of the work so far, from which it goes on.
        folder: where that is.
        refused: a file of JSON lines to write what is refused into.

    Raises ValueError if what it would go on from is damaged.
    """

    def __init__(
        self, filters: Filters, manifest: Manifest, folder: Path, refused: Path | None = None
    ) -> None:
        self.filters = filters
        near = filters.near if filters.duplicates == "near" else None
        self.seen = Seen(near)
        self.fresh: list[tuple[bytes, Signature | None]] = []
        self.refused, self.noted = dict(manifest.refused), dict(manifest.noted)
        self.file = _open_refused(refused, manifest.refused_bytes) if refused else None
        if filters.duplicates != "keep":
            for shard in manifest.shards:
                for key, signature in unpack(_seen_file(folder, shard.file).read_bytes(), near):
                    self.seen.add(key, signature)

    def keep(self, examined: Sequence[Examined]) -> list[str]:
        """The texts of those documents that are trained on."""
        return [one.text for one in examined if self._take(one)]

    def _take(self, one: Examined) -> bool:
        refusal = one.refusal or self._find_duplicate(one)
        if refusal is not None:
            _count(self.refused, refusal.reason, one.size)
            self._write(refusal, one.text)
            return False
        for name, sizes in _gathered(one.noted).items():
            _count(self.noted, name, sizes)
        if self.filters.duplicates != "keep":
            self.seen.add(one.key, one.signature)
            self.fresh.append((one.key, one.signature))
        return True

    def _find_duplicate(self, one: Examined) -> Refusal | None:
        if self.filters.duplicates == "keep":
            return None
        if self.seen.is_exact(one.key):
            return Refusal("duplicate.exact", "the same but for case and spaces")
        if one.signature is None:
            return None
        similarity = self.seen.similarity(one.signature)
        if similarity < self.filters.near.threshold:
            return None
        return Refusal("duplicate.near", f"similar to {similarity:.3f}")

    def _write(self, refusal: Refusal, text: str) -> None:
        if self.file is not None:
            record = {"reason": refusal.reason, "detail": refusal.detail, "text": text}
            self.file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def save(self, folder: Path, shard: str) -> dict[str, Any]:
        """What a manifest must say to go on from here, once what was kept is in `shard`."""
        if self.filters.duplicates != "keep":
            write_whole(_seen_file(folder, shard), pack(self.fresh))
            self.fresh = []
        return self.account()

    def account(self) -> dict[str, Any]:
        """The counts, as a manifest holds them."""
        written = 0
        if self.file is not None:
            self.file.flush()
            written = self.file.tell()
        return {
            "refused": dict(self.refused),
            "noted": dict(self.noted),
            "refused_bytes": written,
        }

    def close(self) -> None:
        """Close the file of refused documents."""
        if self.file is not None:
            self.file.close()


def forget_seen(folder: Path, manifest: Manifest) -> None:
    """Remove what only an unfinished preparation needs."""
    for shard in manifest.shards:
        _seen_file(folder, shard.file).unlink(missing_ok=True)


def _seen_file(folder: Path, shard: str) -> Path:
    return (folder / shard).with_suffix(".seen")


def _open_refused(path: Path, position: int) -> IO[bytes]:
    there = path.stat().st_size if path.exists() else 0
    if there < position:
        raise ValueError(
            f"{path} has {there} bytes, but {position} were written when the work was left: "
            "give the file back, or start anew in another folder"
        )
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(position)
    file.seek(position)
    return file


def _gathered(noted: Sequence[tuple[str, int]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for name, size in noted:
        sizes[name] = sizes.get(name, 0) + size
    return sizes


def _count(amounts: dict[str, Amount], name: str, size: int) -> None:
    before = amounts.get(name, Amount(documents=0, text_bytes=0))
    amounts[name] = Amount(documents=before.documents + 1, text_bytes=before.text_bytes + size)


def identity(examiner: Examiner) -> dict[str, Any] | None:
    """What a manifest says of the filters: those not at their default, None if all are."""
    said = examiner.filters.model_dump(mode="json", exclude_defaults=True)
    if rules := examiner.filters.quality.rules:
        said["quality"] = said.get("quality", {}) | {name: list(bounds) for name, bounds in rules}
    if examiner.evaluations is not None:
        said["evaluations"] = examiner.evaluations.hash()
    return said or None
