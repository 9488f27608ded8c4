"""A model's belief about the next token.

V vocabulary.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from limner.language_model.completion import token_text

if TYPE_CHECKING:
    from limner.tokenizers import Tokenizer


class Candidate(NamedTuple):
    """A token that may come next."""

    id: int
    text: str
    probability: float


class Distribution:
    """Probabilities of every next token; a notebook shows the best as bars.

    Attributes:
        probabilities: (V,) float64, adding up to one.
    """

    def __init__(self, logits: Tensor, tokenizer: Tokenizer) -> None:
        self.probabilities = logits.detach().double().softmax(-1)  # (V,)
        self._tokenizer = tokenizer

    @property
    def entropy(self) -> float:
        """Uncertainty in bits: 0 if one token is certain, log2(V) if all are alike."""
        return float(-torch.special.xlogy(self.probabilities, self.probabilities).sum()) / math.log(
            2
        )

    def top(self, count: int = 10) -> list[Candidate]:
        """The most probable tokens, best first, the lowest id first among equals."""
        ordered = self.probabilities.sort(descending=True, stable=True)
        pairs = zip(ordered.indices[:count].tolist(), ordered.values[:count].tolist(), strict=True)
        return [
            Candidate(token, token_text(self._tokenizer, token), probability)
            for token, probability in pairs
        ]

    def probability(self, token: int | str) -> float:
        """The probability of a token, given by its id or by text that is one token.

        Raises ValueError if the text is not one token.
        """
        return float(self.probabilities[self._id(token)])

    def _id(self, token: int | str) -> int:
        if isinstance(token, int):
            return token
        ids = self._tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(f"{token!r} is {len(ids)} tokens, not one: {ids}")
        return ids[0]

    def __repr__(self) -> str:
        best = ", ".join(f"{text!r} {probability:.3f}" for _, text, probability in self.top(5))
        return f"Distribution({best}, ...; entropy {self.entropy:.2f} bits)"

    def _repr_html_(self) -> str:
        best = self.top()
        rows = "".join(_bar(candidate, best[0].probability) for candidate in best)
        rest = max(0.0, 1 - sum(candidate.probability for candidate in best))
        return (
            '<table style="border-collapse:collapse;font-size:.9em">'
            f'<caption style="text-align:left">entropy {self.entropy:.2f} bits; '
            f"all other tokens {rest:.1%}</caption>{rows}</table>"
        )


def _bar(candidate: Candidate, longest: float) -> str:
    shown = html.escape(visible(candidate.text))
    width = 100 * candidate.probability / longest if longest else 0
    bar = f"background:#4c78a8;height:1em;width:{width:.1f}%"
    return (
        f'<tr><td style="text-align:right;font-family:monospace;white-space:pre" '
        f'title="id {candidate.id}">{shown}</td>'
        f'<td style="width:20em"><div style="{bar}"></div></td>'
        f'<td style="text-align:right">{candidate.probability:.2%}</td></tr>'
    )


def visible(text: str) -> str:
    """A token's text with spaces and line ends that can be seen."""
    pairs = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    return "".join(pairs.get(character, character) for character in text)
