"""From token ids back to text: all at once, or token by token without ever splitting a character.

Both read one table: what each token contributes, in bytes. So the pieces of an `IncrementalDecoder`
joined are the decoded whole by construction, and a token costs the same however long the text is.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import decoders

if TYPE_CHECKING:
    from limner.tokenizers.tokenizer import Tokenizer

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable character for each byte (Radford et al. 2019): character to byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    spelled = {chr(byte): byte for byte in printable}
    return spelled | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = byte_alphabet()


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    """One replacement character for each byte that is in no character, as SentencePiece has it."""
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("limner.each_byte", _each_byte)


class Spelling:
    """What each token of a vocabulary contributes to decoded text.

    Attributes:
        errors: how bytes that are no UTF-8 are replaced (a name that `bytes.decode` knows).
        lead: a string that is removed once from the start of the text, or "".
        held: a string that is removed from the end of the text, or "".

    Raises:
        ValueError: if the tokenizer's decoder does something that no language model's does.
    """

    def __init__(self, engine: tokenizers.Tokenizer) -> None:
        self._engine = engine
        self._steps, whole = _split_at_fuse(_decoder_steps(engine))
        _require_known(self._steps, whole)
        kinds = {step["type"] for step in self._steps}
        self.errors = "limner.each_byte" if "ByteFallback" in kinds else "replace"
        self.lead = "".join(step["content"] * step["start"] for step in whole)
        self.held = " " if "BPEDecoder" in kinds else ""
        self._later: dict[int, bytes] = {}

    def later(self, token_id: int) -> bytes:
        """The bytes of a token that is not the first; none for an id outside the vocabulary."""
        spelled = self._later.get(token_id)
        if spelled is None:
            spelled = self._later[token_id] = self._spell(token_id, first=False)
        return spelled

    def first(self, token_id: int) -> bytes:
        """The bytes of a token that begins the text."""
        return self._spell(token_id, first=True)

    def _spell(self, token_id: int, *, first: bool) -> bytes:
        text = self._engine.id_to_token(token_id)
        if text is None:
            return b""
        if self._engine.decoder is None:
            return (text if first else " " + text).encode()
        for step in self._steps:
            spelled = _STEPS[step["type"]](text, step, first)
            if isinstance(spelled, bytes):
                return spelled
            text = spelled
        return text.encode()


def _decoder_steps(engine: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    if engine.decoder is None:
        return []
    spec = json.loads(engine.decoder.__getstate__())
    return _flatten(spec)


def _flatten(spec: dict[str, Any]) -> list[dict[str, Any]]:
    if spec["type"] != "Sequence":
        return [spec]
    return [step for part in spec["decoders"] for step in _flatten(part)]


def _split_at_fuse(
    steps: list[dict[str, Any]],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The steps that see one token at a time, and those that see the whole text."""
    kinds = [step["type"] for step in steps]
    if "Fuse" not in kinds:
        return steps, []
    place = kinds.index("Fuse")
    return steps[:place], [step for step in steps[place:] if step["type"] != "Fuse"]


def _require_known(steps: list[dict[str, Any]], whole: list[dict[str, Any]]) -> None:
    for step in steps:
        regex = step["type"] == "Replace" and "Regex" in step["pattern"]
        if step["type"] not in _STEPS or regex:
            raise ValueError(f"the tokenizer's decoder has a step that is not supported: {step}")
    for step in whole:
        if step["type"] != "Strip" or step["stop"] != 0 or step["start"] > 1:
            raise ValueError(f"the tokenizer's decoder has a step that is not supported: {step}")


def _byte_level(text: str, _step: dict[str, Any], _first: bool) -> bytes:
    try:
        return bytes([_BYTES[character] for character in text])
    except KeyError:  # an added token is written as it is
        return text.encode()


def _byte_fallback(text: str, _step: dict[str, Any], _first: bool) -> str | bytes:
    match = _BYTE_PIECE.fullmatch(text)
    return bytes([int(match[1], 16)]) if match else text


def _replace(text: str, step: dict[str, Any], _first: bool) -> str:
    return text.replace(step["pattern"]["String"], step["content"])


def _strip(text: str, step: dict[str, Any], _first: bool) -> str:
    for _ in range(step["start"]):
        text = text.removeprefix(step["content"])
    for _ in range(step["stop"]):
        text = text.removesuffix(step["content"])
    return text


def _metaspace(text: str, step: dict[str, Any], first: bool) -> str:
    drop = first and step["prepend_scheme"] != "never"
    return text.replace(step["replacement"], "" if drop else " ")


def _wordpiece(text: str, step: dict[str, Any], first: bool) -> str:
    decoder = decoders.WordPiece(prefix=step["prefix"], cleanup=step["cleanup"])
    return decoder.decode([text]) if first else decoder.decode(["x", text])[1:]


def _word_end(text: str, step: dict[str, Any], _first: bool) -> str:
    return text.replace(step["suffix"], " ")


_STEPS = {
    "ByteLevel": _byte_level,
    "ByteFallback": _byte_fallback,
    "Replace": _replace,
    "Strip": _strip,
    "Metaspace": _metaspace,
    "WordPiece": _wordpiece,
    "BPEDecoder": _word_end,
}


def decode(spelling: Spelling, ids: Iterable[int]) -> str:
    """The text of a whole sequence of tokens."""
    tokens = iter(ids)
    spelled = [spelling.first(token_id) for token_id in _take(tokens, 1)]
    spelled.extend(map(spelling.later, tokens))
    text = b"".join(spelled).decode("utf-8", spelling.errors)
    return text.removeprefix(spelling.lead).removesuffix(spelling.held)


def _take(tokens: Iterator[int], count: int) -> Iterator[int]:
    for _, token_id in zip(range(count), tokens, strict=False):
        yield token_id


class IncrementalDecoder:
    """Text as tokens arrive: each `push` returns what is certain, `finish` what is left.

    The pieces joined equal `tokenizer.decode` of all the tokens.

    Args:
        tokenizer: whose tokens arrive.
        skip_special_tokens: leave special tokens out of the text.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._spelling = tokenizer.spelling
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        self._characters = codecs.getincrementaldecoder("utf-8")(self._spelling.errors)
        self._first = True
        self._lead = self._spelling.lead
        self._held = ""

    def push(self, token_id: int) -> str:
        """Take one token; return the text that it completes, perhaps none."""
        if token_id in self._skipped:
            return ""
        spelled = self._spelling.first if self._first else self._spelling.later
        self._first = False
        return self._emit(self._characters.decode(spelled(token_id)))

    def finish(self) -> str:
        """The rest: a replacement character if the last character was never completed."""
        text = self._emit(self._characters.decode(b"", True))
        held, self._held = self._held, ""
        return text + held.removesuffix(self._spelling.held)

    def decode(self, tokens: Iterable[int]) -> Iterator[str]:
        """The pieces of text that a stream of tokens completes, ending with the rest."""
        for token_id in tokens:
            if piece := self.push(token_id):
                yield piece
        if rest := self.finish():
            yield rest

    def _emit(self, text: str) -> str:
        if not text:
            return ""
        text, self._lead = text.removeprefix(self._lead), ""
        if not self._spelling.held:
            return text
        text, self._held = self._held + text, ""
        if text.endswith(self._spelling.held):
            self._held = self._spelling.held
            text = text.removesuffix(self._held)
        return text
