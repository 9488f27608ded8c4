"""Encoding whole corpora: by the fastest library that gives this tokenizer's own ids.

gigatok and tokie are a hundred times as fast as `tokenizers`, but know fewer tokenizers, and some
of those not quite. So nothing is believed: a library is taken if it agrees on part of the first
texts and on a few that are hard, a little of all further ones is compared as well, and where it
disagrees, or is not installed, `tokenizers` does the work.

N tokens of all texts, M texts.
"""

from __future__ import annotations

import importlib
import json
import logging
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy
from numpy.typing import NDArray

from limner.tokenizers.decoding import byte_alphabet
from limner.tokenizers.pretokenizers import GPT2

if TYPE_CHECKING:
    from limner.tokenizers.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

#: Characters compared before a library is believed, and the share of all further ones.
FIRST_CHECK, LATER_SHARE = 200_000, 0.001
#: Characters of one piece of text that is compared.
PIECE = 2000
ASCII = bytes(range(128))
#: The first code point of the planes in which hardly anything is assigned.
MOST = 0x30000
HARD = (
    "",
    " ",
    "\n",
    " \n\n  a\n\t\tb \r\n\r\n c  ",
    "don't I'LL we've 1234567 3.14 x²½٣٤ Ⅻ",
    "naïve e\u0301 ﬁne ＡＢＣ ſ İ ß \u00a0\u3000\u200b\u200d\ufeff\ufffd\x00\x1f\x7f",
    "日本語、中文。한국어 Привет мир 👩‍👩‍👧 🇩🇪 नमस्ते",
    "<s></s><unk><pad>[CLS][SEP]<|endoftext|><|im_start|><0x41>▁▁ ##x Ġ",
    "=" * 70 + "-" * 33 + "a" * 300,
)


class Encoded(NamedTuple):
    """Token ids of texts end to end, (N,), and how many each text has, (M,)."""

    ids: NDArray[Any]
    lengths: NDArray[numpy.int64]

    def split(self) -> list[NDArray[Any]]:
        """The ids of each text."""
        return numpy.split(self.ids, self.lengths.cumsum()[:-1]) if len(self.lengths) else []

    def framed(self, before: Sequence[int], after: Sequence[int]) -> Encoded:
        """With tokens before and after each text."""
        lengths = self.lengths + len(before) + len(after)
        ends = lengths.cumsum()
        starts = ends - lengths
        ids = numpy.empty(int(lengths.sum()), numpy.uint32)
        own = numpy.ones(len(ids), numpy.bool_)
        places = [(starts + number, token) for number, token in enumerate(before)]
        places += [(ends - number, token) for number, token in enumerate(reversed(after), 1)]
        for place, token in places:
            ids[place], own[place] = token, False
        ids[own] = self.ids
        return Encoded(ids, lengths)


Encode = Callable[[Sequence[str]], Encoded]
Given = TypeVar("Given")
Result = TypeVar("Result")


class _Fast(NamedTuple):
    """A library, and the characters that it gets wrong."""

    encode: Encode
    wrong: frozenset[str]
    """beside those from MOST on"""

    def may_err(self, text: str) -> bool:
        """Whether a text has characters that the library gets wrong."""
        if text.isascii():
            return False
        others = text.encode().translate(None, ASCII).decode()
        return max(others) >= chr(MOST) or not self.wrong.isdisjoint(others)


class BulkEncoder:
    """Encodes many texts, in which nothing is special, without what inputs begin and end with.

    Which library does it is settled with the first texts, and said in the log.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._fast: _Fast | None = None
        self.library = ""
        """What encodes, once texts have been seen."""

    def encode(self, texts: Sequence[str]) -> Encoded:
        """The ids that `Tokenizer.encode_batch` gives."""
        try:
            if not self.library:
                self._choose(texts)
            elif self._fast is not None:
                self._check_again(texts)
            if self._fast is not None:
                return self._careful(texts, self._fast)
        except PanicError as panic:
            _log.warning("%s %s, so tokenizers goes on", self.library, panic)
            self._fast, self.library = None, "tokenizers"
        return self._slow(texts)

    def __reduce__(self) -> tuple[type[BulkEncoder], tuple[Tokenizer]]:
        return BulkEncoder, (self._tokenizer,)  # another process chooses for itself

    def _slow(self, texts: Sequence[str]) -> Encoded:
        return joined(self._tokenizer.encode_batch(texts, add_special_tokens=False))

    def _choose(self, texts: Sequence[str]) -> None:
        share = FIRST_CHECK / max(sum(map(len, texts)), 1)
        pieces = [*HARD, *some_pieces(texts, share)]
        for name in () if self._tokenizer.plain.reads_names else LIBRARIES:
            reason = self._try(name, pieces)
            if not reason:
                self.library = name
                return
            _log.info("%s does not encode: %s", name, reason)
        self.library = "tokenizers"

    def _try(self, name: str, pieces: Sequence[str]) -> str:
        """Have a library encode from now on, or why not."""
        try:
            load = _with_panics_as_errors(LIBRARIES[name])
            encode = _with_panics_as_errors(load(plain_spec(self._tokenizer)))
            fast = _Fast(encode, self._wrong(encode))
            differs = self._differs(fast, pieces)
        except Exception as error:  # libraries refuse tokenizers with exceptions of all kinds
            return str(error).partition("\n")[0]
        if differs:
            return "it has other tokens for some texts"
        self._fast = fast
        _log.info("%s encodes", name)
        return ""

    def _check_again(self, texts: Sequence[str]) -> None:
        assert self._fast is not None
        if self._differs(self._fast, list(some_pieces(texts, LATER_SHARE))):
            _log.warning(
                "%s has other tokens than tokenizers for some of these texts, so tokenizers goes "
                "on; earlier texts may have a few other tokens, which stand for the same text",
                self.library,
            )
            self._fast, self.library = None, "tokenizers"

    def _differs(self, fast: _Fast, pieces: Sequence[str]) -> bool:
        return not all(map(numpy.array_equal, self._careful(pieces, fast), self._slow(pieces)))

    def _wrong(self, encode: Encode) -> frozenset[str]:
        """Numbers that a library does not take for such (tokie: Roman ones), and unassigned ones.

        The latter tokie's WordPiece cleans otherwise.
        """
        numbers = sorted(_of_category("Nd", "Nl", "No"))
        texts = [f"a {number}{number}b" for number in numbers]
        fast, slow = encode(texts).split(), self._slow(texts).split()
        equal = map(numpy.array_equal, fast, slow)
        wrong = (number for number, same in zip(numbers, equal, strict=True) if not same)
        return _of_category("Cn", "Co").union(wrong)

    def _careful(self, texts: Sequence[str], fast: _Fast) -> Encoded:
        """With texts done again that the library cannot do."""
        encoded = fast.encode(texts)
        again = {number for number, text in enumerate(texts) if fast.may_err(text)}
        ends = encoded.lengths.cumsum()
        reached = self._unwritten[encoded.ids].nonzero()[0]
        again.update(numpy.searchsorted(ends, reached, side="right").tolist())
        if not again:
            return encoded
        parts = encoded.split()
        plain = self._tokenizer.plain
        return joined([plain.ids(texts[i]) if i in again else parts[i] for i in range(len(texts))])

    @cached_property
    def _unwritten(self) -> NDArray[numpy.bool_]:
        """Whether an id is one that text must never become, or of a byte that has no token."""
        size = self._tokenizer.vocabulary_size
        table = numpy.arange(size + 256) >= size
        table[list(self._tokenizer.plain.forbidden)] = True
        return table


@cache
def _of_category(*names: str) -> frozenset[str]:
    """The characters before MOST that Unicode puts into these categories."""
    return frozenset(c for c in map(chr, range(MOST)) if unicodedata.category(c) in names)


def joined(documents: Sequence[Sequence[int] | NDArray[Any]]) -> Encoded:
    """Documents of ids end to end."""
    lengths = numpy.fromiter(map(len, documents), numpy.int64, len(documents))
    arrays = [numpy.asarray(ids, numpy.uint32) for ids in documents]
    return Encoded(numpy.concatenate([numpy.zeros(0, numpy.uint32), *arrays]), lengths)


def some_pieces(texts: Sequence[str], share: float) -> Iterator[str]:
    """Pieces that are about a share of the texts together, evenly spread over them."""
    stride = round(PIECE / min(share, 1.0))
    place = 0  # where the next piece begins, counted from the start of the text
    for text in texts:
        while place < len(text):
            yield text[place : place + PIECE]
            place += stride
        place -= len(text)


def plain_spec(tokenizer: Tokenizer) -> str:
    """A tokenizer.json without special tokens, written as the fast libraries know it."""
    spec = json.loads(tokenizer.engine.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["special"]]
    spec["post_processor"] = None
    spec["pre_tokenizer"] = _customary(spec["pre_tokenizer"])
    if tokenizer.kind == "byte-level BPE":
        vocabulary = spec["model"]["vocab"]
        missing = [letter for letter in byte_alphabet() if letter not in vocabulary]
        for number, letter in enumerate(missing, tokenizer.vocabulary_size):
            vocabulary[letter] = number  # they want all bytes; see BulkEncoder._careful
    return json.dumps(spec)


def _customary(splits: Any) -> Any:
    """GPT-2's own expressions in the place of regular expressions that are the same."""
    if not isinstance(splits, dict) or splits["type"] != "Sequence":
        return splits
    steps = splits["pretokenizers"]
    if len(steps) > 1 and _pattern(steps[-2]) == GPT2 and steps[-1]["type"] == "ByteLevel":
        steps = [*steps[:-2], steps[-1] | {"use_regex": True}]
    digits = {"type": "Digits", "individual_digits": True}
    steps = [digits if _pattern(step) == r"\p{N}" else step for step in steps]
    return steps[0] if len(steps) == 1 else splits | {"pretokenizers": steps}


def _pattern(step: dict[str, Any]) -> str | None:
    """The regular expression that a step cuts text by, if that is all that it does."""
    isolates = step["type"] == "Split" and step["behavior"] == "Isolated" and not step["invert"]
    return step["pattern"].get("Regex") if isolates else None


# The libraries


class PanicError(RuntimeError):
    """A library met what its authors thought impossible."""


def _with_panics_as_errors(call: Callable[[Given], Result]) -> Callable[[Given], Result]:
    """The same, but a panic of Rust, which PyO3 makes no `Exception`, becomes one."""

    def guarded(given: Given) -> Result:
        try:
            return call(given)
        except BaseException as error:
            # Each library has a class of its own for it, which cannot be imported.
            if type(error).__name__ != "PanicException":
                raise
            reason, _, _ = str(error).partition("\n")
            raise PanicError(f"panicked: {reason}") from error

    return guarded


def _gigatok(spec: str) -> Encode:
    library = importlib.import_module("gigatok")
    awkward = importlib.import_module("awkward")
    engine = library.Tokenizer.from_json(spec)

    def encode(texts: Sequence[str]) -> Encoded:
        layout = awkward.to_layout(engine.encode_batch(list(texts)))
        bounds = numpy.asarray(layout.offsets.data, numpy.int64)
        ids = numpy.asarray(layout.content.data)[bounds[0] : bounds[-1]]
        return Encoded(ids, numpy.diff(bounds))

    return encode


def _tokie(spec: str) -> Encode:
    library = importlib.import_module("tokie")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(spec, encoding="utf-8")
        engine = library.Tokenizer.from_json(str(path))

    def encode(texts: Sequence[str]) -> Encoded:
        encodings = engine.encode_batch(list(texts), add_special_tokens=False)
        return joined([encoding.ids for encoding in encodings])

    return encode


#: In the order in which they are tried.
LIBRARIES: dict[str, Callable[[str], Encode]] = {"gigatok": _gigatok, "tokie": _tokie}
