"""Tokens for people to look at."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import NamedTuple

# Background colours light enough for black text: each has a contrast above 12 to 1.
_COLOURS = ("#cfe8ff", "#ffe3b3", "#d5f5d0", "#fbd7e8", "#e5dbff", "#fff3a6")


class Piece(NamedTuple):
    """A token of a text."""

    id: int
    text: str
    """As the vocabulary spells it."""
    start: int
    end: int
    """The characters of the text that it stands for; several tokens can share one character."""
    bytes: bytes
    """What it adds to a decoded text."""
    source: str
    """The characters from `start` to `end` as the text has them."""

    @property
    def shown(self) -> str:
        """What it adds to the text, with bytes that are only part of a character in hexadecimal."""
        try:
            return self.bytes.decode()
        except UnicodeDecodeError:
            return "".join(f"\\x{byte:02x}" for byte in self.bytes)


@dataclass(frozen=True)
class Tokenization:
    """The tokens of a text. A notebook shows them in alternating colours, with their ids."""

    pieces: list[Piece]

    @property
    def ids(self) -> list[int]:
        """The token ids."""
        return [piece.id for piece in self.pieces]

    def __len__(self) -> int:
        return len(self.pieces)

    def __str__(self) -> str:
        return "|".join(piece.shown for piece in self.pieces)

    def _repr_html_(self) -> str:
        tokens = "".join(_token(piece, place) for place, piece in enumerate(self.pieces))
        return (
            f'<div role="list" aria-label="{len(self.pieces)} tokens" '
            f'style="line-height:2.6;color:#000">{tokens}</div>'
        )


def _token(piece: Piece, place: int) -> str:
    colour = _COLOURS[place % len(_COLOURS)]
    shown = html.escape(piece.shown).replace("\n", "\u21b5<br>").replace("\t", "\u21e5")
    title = html.escape(f"{piece.text} (id {piece.id})", quote=True)
    return (
        f'<span role="listitem" title="{title}" style="background:{colour};color:#000;'
        "display:inline-block;padding:0 2px;margin:1px;border-radius:3px;white-space:pre-wrap;"
        f'line-height:1.3;text-align:center">{shown}'
        f'<small style="display:block;color:#333;font-size:.65em">{piece.id}</small></span>'
    )
