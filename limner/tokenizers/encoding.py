"""Text to tokens without ever reading a special token out of it.

`tokenizers` can be told not to look for special tokens, yet some models reach them all the same:
the vocabulary of a unigram model holds "</s>" as an ordinary piece, and "<0x41>" as the byte A. A
token reached that way is broken up: its text is cut after the first character and encoded in parts.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Sequence
from enum import Enum
from typing import Any, NamedTuple

import tokenizers


class Placed(NamedTuple):
    """A token and the characters `start` to `end` of the text that it stands for."""

    id: int
    start: int
    end: int


class Position(Enum):
    """Where a stretch of text stands, for tokenizers that write a space before text."""

    FIRST = "at the start of the input"
    LATER = "after a special token"
    WITHIN = "in the middle of other text"


class PlainEncoder:
    """Encodes text in which nothing is special, neither BOS nor a token's name.

    Args:
        engine: the tokenizer; it is told not to look for special tokens.
        forbidden: ids that text must never become.
        unknown: the id for text that can be nothing else, or None.
    """

    def __init__(
        self, engine: tokenizers.Tokenizer, forbidden: Collection[int], unknown: int | None
    ) -> None:
        engine.encode_special_tokens = True
        self._engines = {Position.FIRST: engine}
        self._forbidden = frozenset(forbidden) - {unknown}
        self._unknown = unknown
        self._names = _names_in_reach(engine, unknown)
        unigram = isinstance(engine.model, tokenizers.models.Unigram)
        self._fuses = unigram or getattr(engine.model, "fuse_unk", False)

    def forbidding(self, more: Collection[int]) -> PlainEncoder:
        """The same encoder, which keeps text from becoming `more` tokens too."""
        if self._forbidden.issuperset(set(more) - {self._unknown}):
            return self
        engine = self._engines[Position.FIRST]
        stricter = PlainEncoder(engine, self._forbidden.union(more), self._unknown)
        stricter._engines = self._engines
        return stricter

    @property
    def forbidden(self) -> frozenset[int]:
        """Ids that text never becomes."""
        return self._forbidden

    @property
    def reads_names(self) -> bool:
        """Whether the model by itself matches names of pieces (<0x41>) in text."""
        return self._names is not None

    def ids(self, text: str, position: Position = Position.FIRST) -> list[int]:
        """Token ids of a text."""
        ids = self._engine(position).encode(text, add_special_tokens=False).ids
        return ids if self._clean(text, ids) else self._slowly(text, position)

    def batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, in parallel."""
        engine = self._engines[Position.FIRST]
        encodings = engine.encode_batch_fast(list(texts), add_special_tokens=False)
        found = [encoding.ids for encoding in encodings]
        return [
            ids if self._clean(text, ids) else self._slowly(text, Position.FIRST)
            for text, ids in zip(texts, found, strict=True)
        ]

    def placed(self, text: str, position: Position = Position.FIRST) -> list[Placed]:
        """Tokens with the places in the text that they came from."""
        encoding = self._engine(position).encode(text, add_special_tokens=False)
        tokens = [
            Placed(token_id, *span)
            for token_id, span in zip(encoding.ids, encoding.offsets, strict=True)
        ]
        if self._clean(text, encoding.ids):
            return tokens
        bad = [token for token in tokens if self._must_break(token, text)]
        cuts = sorted({token.start + 1 for token in bad if token.end - token.start > 1})
        if not cuts:
            return self._replaced(tokens)
        return self._in_parts(text, position, [0, *cuts, len(text)])

    def _slowly(self, text: str, position: Position) -> list[int]:
        return [token.id for token in self.placed(text, position)]

    def _in_parts(self, text: str, position: Position, cuts: list[int]) -> list[Placed]:
        tokens: list[Placed] = []
        for start, end in itertools.pairwise(cuts):
            where = position if start == 0 else Position.WITHIN
            for token_id, first, last in self.placed(text[start:end], where):
                if self._fuses and tokens and token_id == tokens[-1].id == self._unknown:
                    tokens[-1] = tokens[-1]._replace(end=last + start)
                else:
                    tokens.append(Placed(token_id, first + start, last + start))
        return tokens

    def _replaced(self, tokens: list[Placed]) -> list[Placed]:
        """The unknown token, or none, where a single character is itself a special token."""
        if self._unknown is None:
            return [token for token in tokens if token.id not in self._forbidden]
        return [
            token._replace(id=self._unknown) if token.id in self._forbidden else token
            for token in tokens
        ]

    def _clean(self, text: str, ids: list[int]) -> bool:
        if not self._forbidden.isdisjoint(ids):
            return False
        return self._names is None or not self._names.search(text)

    def _must_break(self, token: Placed, text: str) -> bool:
        if token.id in self._forbidden:
            return True
        if self._names is None or not self._names.search(text, token.start, token.end):
            return False
        spelled = self._engines[Position.FIRST].id_to_token(token.id)
        return token.id == self._unknown or self._names.fullmatch(spelled or "") is not None

    def _engine(self, position: Position) -> tokenizers.Tokenizer:
        """The engine for text in a position.

        An engine takes every text for the start of the input, so where that makes a difference
        there is one for each position.
        """
        if position not in self._engines:
            self._engines[position] = _without_prefix(self._engines[Position.FIRST], position)
        return self._engines[position]


def _names_in_reach(engine: tokenizers.Tokenizer, unknown: int | None) -> re.Pattern[str] | None:
    """Names of byte and unknown pieces, if the model would match them in text."""
    model = engine.model
    whole_words = isinstance(model, tokenizers.models.BPE) and model.ignore_merges
    if not (whole_words or isinstance(model, tokenizers.models.Unigram)):
        return None
    names = [r"<0x[0-9A-F]{2}>"] if engine.token_to_id("<0x00>") is not None else []
    spelled = engine.id_to_token(unknown) if unknown is not None else None
    if spelled:
        names.append(re.escape(spelled))
    return re.compile("|".join(names)) if names else None


def _without_prefix(engine: tokenizers.Tokenizer, position: Position) -> tokenizers.Tokenizer:
    """A copy that writes no space before text, or the engine itself if it writes none anyway."""
    steps = [engine.normalizer, engine.pre_tokenizer]
    writing = b"".join(step.__getstate__() for step in steps if step is not None)
    schemes = [b'"first"']
    if position is Position.WITHIN:
        schemes += [b'"always"', b'"Prepend"', b'"add_prefix_space":true']
    if not any(scheme in writing for scheme in schemes):
        return engine
    spec = json.loads(engine.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if not token["special"]]
    for part in ("normalizer", "pre_tokenizer"):
        spec[part] = _with_no_prefix(spec[part], position)
    copy: tokenizers.Tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    return copy


def _with_no_prefix(spec: Any, position: Position) -> Any:
    if isinstance(spec, list):
        return [_with_no_prefix(part, position) for part in spec]
    if not isinstance(spec, dict):
        return spec
    changed = {key: _with_no_prefix(part, position) for key, part in spec.items()}
    if changed.get("prepend_scheme") == "first":
        changed["prepend_scheme"] = "never"
    if position is Position.WITHIN:
        nothing = {"prepend_scheme": "never", "prepend": "", "add_prefix_space": False}
        changed |= {key: value for key, value in nothing.items() if key in changed}
    return changed
