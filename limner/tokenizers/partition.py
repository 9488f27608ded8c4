"""Finding control tokens in text, by the rules that `tokenizers` has for added tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from tokenizers import AddedToken


class Segment(NamedTuple):
    """A stretch of text: a control token if it has an id, plain text otherwise."""

    text: str
    start: int
    end: int
    token_id: int | None


def any_of(contents: Iterable[str]) -> re.Pattern[str]:
    """A pattern that finds the longest of some strings."""
    longest_first = sorted(filter(None, contents), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


class ControlTokens:
    """A set of added tokens that can be found in text, longest first."""

    def __init__(self, tokens: Mapping[int, AddedToken]) -> None:
        self._found = {token.content: (token_id, token) for token_id, token in tokens.items()}
        self._pattern = any_of(self._found)

    @property
    def contents(self) -> list[str]:
        """The tokens' texts."""
        return list(self._found)

    @property
    def ids(self) -> list[int]:
        """The tokens' ids."""
        return [token_id for token_id, _ in self._found.values()]

    def split(self, text: str, spelled: str | None = None) -> Iterator[Segment]:
        """Cut text at the control tokens in it.

        Args:
            text: where tokens are looked for.
            spelled: the text that segments are taken from, of the same length (default: `text`).
        """
        spelled = text if spelled is None else spelled
        done = 0
        for match in self._pattern.finditer(text):
            token_id, token = self._found[match.group()]
            if token.single_word and _inside_word(text, *match.span()):
                continue
            start, end = _with_stripped_space(text, match, token, done)
            if done < start:
                yield Segment(spelled[done:start], done, start, None)
            yield Segment(token.content, start, end, token_id)
            done = end
        if done < len(text):
            yield Segment(spelled[done:], done, len(text), None)


def _inside_word(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return bool(re.match(r"\w", before) or re.match(r"\w", after))


def _with_stripped_space(
    text: str, match: re.Match[str], token: AddedToken, done: int
) -> tuple[int, int]:
    """Widen a match over the white space that the token swallows on its left and right."""
    start, end = match.span()
    while token.lstrip and start > done and text[start - 1].isspace():
        start -= 1
    while token.rstrip and end < len(text) and text[end].isspace():
        end += 1
    return start, end
