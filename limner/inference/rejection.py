"""The rejection rule: a guessed token is kept or replaced so that nobody can tell it was guessed.

A token guessed with probability q is kept with probability min(1, p/q), where p is what the network
gives it; one that is not kept is replaced by a draw from what p has more than q. The outcome has
the distribution p, whatever q is (Leviathan et al. 2023, https://arxiv.org/abs/2211.17192; Chen et
al. 2023, https://arxiv.org/abs/2302.01318).

A token that was certain to be guessed (q is 1) is kept with probability p, and replaced by a draw
from the others. That is what comes of drawing from p as if there were no guess and comparing: so
such guesses need nothing from here, and change no answer.

Legend: N places, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from limner.inference.randomness import uniform

#: What a random number at a position is for (0 draws the token).
GUESS, TEST = 1, 2


class Guess(NamedTuple):
    """A guessed token, and the probabilities (V,) that it was drawn from.

    Without these it was certain to be guessed.
    """

    token: int
    probabilities: Tensor | None = None


def kept(target: Tensor, draft: Tensor, tokens: Tensor, numbers: Tensor) -> Tensor:
    """Which guessed `tokens` (N,) stay, (N,) bool.

    `target` and `draft` (N, V) are the probabilities p and q; `numbers` (N,) are uniform in [0, 1).
    """
    chosen = tokens.unsqueeze(-1)
    wanted, guessed = (table.gather(-1, chosen).squeeze(-1) for table in (target, draft))
    return numbers.to(target) * guessed < wanted


def leftover(target: Tensor, draft: Tensor) -> Tensor:
    """What a token that was not kept is drawn from instead, (N, V), not normalised.

    A row in which p is nowhere above q rejects nothing, so it may hold anything that can be drawn.
    """
    above = (target - draft).clamp(min=0)
    return torch.where(above.sum(-1, keepdim=True) > 0, above, target)


def tests(seeds: list[int], samples: list[int], positions: list[int]) -> Tensor:
    """The numbers that decide what is kept at these positions, (N,) float64."""
    return torch.from_numpy(uniform(seeds, samples, positions, TEST))
