"""Repairs of a document: each a pure function from text to text, under the name settings give it.

What they take out is what no writer meant: broken encodings, control characters, HTML remains,
lines that stand on every page. Whether what is left is worth learning from, `quality` says.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal

from limner.data.extra import import_extra

RepairName = Literal["encoding", "unicode", "control", "html", "web_lines"]

#: What terminals are told, such as colours.
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
#: Control characters but tab and line feed, byte-order marks and what is no character.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ufffe\uffff]")
LINE_ENDS = re.compile("\r\n?|\x85")

#: Elements that begin a line of their own, and those that stand within one.
BLOCKS = (
    "address article aside blockquote body br center dd div dl dt fieldset figcaption figure "
    "footer form h[1-6] head header hr html li main nav ol option p pre section select table "
    "tbody td tfoot th thead title tr ul"
)
INLINE = (
    "a abbr b big button cite code del em font i iframe img input ins kbd label link mark meta "
    "noscript object s script small span strike strong style sub sup svg textarea tt u video"
)
#: Attributes need a value, so that `a <b and c> d` is no tag.
ATTRIBUTES = r"""(?:\s+[\w:-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'>]+))*\s*/?>"""
BLOCK_TAGS = re.compile(rf"</?(?:{'|'.join(BLOCKS.split())}){ATTRIBUTES}", re.IGNORECASE)
INLINE_TAGS = re.compile(rf"</?(?:{'|'.join(INLINE.split())}){ATTRIBUTES}", re.IGNORECASE)
#: With all that is in them; up to the next beginning only, so that many without an end cost little.
UNSEEN = re.compile(
    rf"<!--(?:(?!<!--).)*?-->|<!doctype [^<>]{{1,200}}>"
    rf"|<(script|style){ATTRIBUTES}(?:(?!<\1).)*?</\1\s*>",
    re.IGNORECASE | re.DOTALL,
)
CLOSED = re.compile(r"</[a-z][a-z0-9]*\s*>|<[bh]r\s*/?>", re.IGNORECASE)
#: Only with a semicolon: `?a=1&copy=2` is an address.
ENTITIES = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)

#: What C4 drops lines for.
POLICIES = re.compile(
    r"javascript|terms of use|privacy policy|cookie policy|uses cookies|use of cookies|use cookies",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?…][\"'”’»)\]]*$")
WORDS_OF_A_LINE = 5

#: Lines at either end of a document in which what stands on every page is looked for.
EDGE = 10


def repair_encoding(text: str) -> str:
    """Undo UTF-8 that was read as another encoding: `Ã©` is é again (ftfy, Speer 2019)."""
    if text.isascii():
        return text
    ftfy = import_extra("ftfy", "data", "repairing broken encodings")
    lines = text.split("\n")
    return "\n".join(line if line.isascii() else ftfy.fix_encoding(line) for line in lines)


def repair_unicode(text: str) -> str:
    """One spelling for each character: Unicode's normal form C, which looks the same."""
    return unicodedata.normalize("NFC", text)


def repair_control(text: str) -> str:
    """Line ends as line feeds; no escape codes, control characters or byte-order marks."""
    return CONTROLS.sub("", LINE_ENDS.sub("\n", ESCAPES.sub("", text)))


def repair_html(text: str) -> str:
    """No tags, comments and scripts of HTML; entities as the characters they stand for.

    Tags go only where one is closed or a line broken: the rest is text about HTML.
    """
    if "<" in text:
        text = UNSEEN.sub("", text)
    if CLOSED.search(text):
        text = INLINE_TAGS.sub("", BLOCK_TAGS.sub("\n", text))
    return ENTITIES.sub(_character, text)


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0]).replace("\xa0", " ")


def repair_web_lines(text: str) -> str:
    """Only lines that are sentences: the lines that C4 keeps (Raffel et al. 2020).

    Those end in punctuation, have at least five words, and do not speak of cookies, policies or
    JavaScript.
    """
    return "\n".join(line for line in text.split("\n") if _is_sentence(line))


def _is_sentence(line: str) -> bool:
    line = line.strip()
    ends = SENTENCE_END.search(line) is not None and not line.endswith(("...", "…"))
    return ends and len(line.split()) >= WORDS_OF_A_LINE and not POLICIES.search(line)


#: In the order in which they are done, whatever the order they are asked for in.
REPAIRS: dict[RepairName, Callable[[str], str]] = {
    "encoding": repair_encoding,
    "control": repair_control,
    "html": repair_html,
    "unicode": repair_unicode,
    "web_lines": repair_web_lines,
}


# What stands on every page


def find_boilerplate(texts: Iterable[str], share: float) -> frozenset[str]:
    """Lines that stand at the beginning or end of more than `share` of the documents.

    Menus, footers, licences. A line must be in three documents at least.
    """
    counts: Counter[str] = Counter()
    documents = 0
    for text in texts:
        documents += 1
        lines = _stripped(text)
        counts.update({line for line in lines[:EDGE] + lines[-EDGE:] if _tells(line)})
    least = max(share * documents, 2)
    return frozenset(line for line, count in counts.items() if count > least)


def remove_boilerplate(text: str, boilerplate: frozenset[str]) -> str:
    """The text without such lines among the first and last of those that are not empty."""
    lines = text.split("\n")
    places = [number for number, line in enumerate(lines) if line.strip()]
    edges = {*places[:EDGE], *places[-EDGE:]}
    gone = {number for number in edges if lines[number].strip() in boilerplate}
    if not gone:
        return text
    return "\n".join(line for number, line in enumerate(lines) if number not in gone)


def _stripped(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _tells(line: str) -> bool:
    """Not a mere bracket or rule, which may stand anywhere."""
    return sum(map(str.isalnum, line)) >= 3
