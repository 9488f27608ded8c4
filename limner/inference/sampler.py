"""The draw: one token for each row of logits.

A token is drawn by inverting the cumulative distribution at one random number. Gumbel-max would
need a number for every token of the vocabulary, and in float32 its tail is truncated (24 random
bits give no Gumbel value above 16.6). The inverse needs one number, of 53 bits, and its running sum
is kept in float64: in float32 a token of probability below 6e-8 would add nothing to it, and a
vocabulary holds 100,000 of them. The number is below 1, so the point sought lies strictly below the
total, also after rounding, and the first running sum above it belongs to a token of positive
weight: a token of probability zero is never drawn.

Legend: R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limner.inference.processors import CUTS, PENALTIES, Row, process
from limner.inference.randomness import uniform

NOT_FINITE = "the model's logits are not finite"
NOTHING_LEFT = "bias, penalties and allowed tokens leave no token to draw"


@dataclass(frozen=True, slots=True)
class Draw:
    """What became of one row of logits."""

    token: int | None
    """The chosen token; None when the logits allowed no choice, and then `error` says why."""
    logprob: float | None = None
    """The token's log-probability (natural logarithm), if the row asked for it."""
    alternatives: tuple[tuple[int, float], ...] = ()
    """The best tokens with their log-probabilities, best first, as many as the row asked for."""
    error: str | None = None


def draw(logits: Tensor, rows: Sequence[Row]) -> list[Draw]:
    """Choose the next token of every row from logits (R, V), each row as if it were alone.

    A row whose logits hold a NaN or an infinity, or of which no token is allowed, gets an error and
    leaves the other rows as they are.
    """
    assert logits.shape[0] == len(rows)
    if not rows:
        return []
    logits = logits if logits.dtype == torch.float64 else logits.float()
    broken: list[bool] = (~logits.amax(-1).isfinite()).tolist()
    scores = process(logits, rows, PENALTIES)
    random = [index for index, row in enumerate(rows) if not row.sampling.greedy]
    if random:
        scores = _replace(scores, random, process(_pick(scores, random), _of(rows, random), CUTS))
    barred: list[bool] = (~scores.amax(-1).isfinite()).tolist()
    tokens = scores.argmax(-1)  # the first of equal maxima
    drawn = [index for index in random if not barred[index]]
    if drawn:
        numbers = _numbers(_of(rows, drawn)).to(scores.device)
        tokens = _replace(tokens, drawn, invert(_pick(scores, drawn), numbers))
    return _collect(logits, scores, rows, tokens.tolist(), broken, barred)


def _of(rows: Sequence[Row], chosen: list[int]) -> list[Row]:
    return [rows[index] for index in chosen]


def _pick(values: Tensor, chosen: list[int]) -> Tensor:
    """Some rows of a tensor, without a copy when they are all."""
    return values if len(chosen) == len(values) else values[chosen]


def _replace(values: Tensor, chosen: list[int], new: Tensor) -> Tensor:
    """A tensor with some rows replaced."""
    if len(chosen) == len(values):
        return new
    return values.index_copy(0, torch.tensor(chosen, device=values.device), new)


def _numbers(rows: Sequence[Row]) -> Tensor:
    """A random number in [0, 1) for the next position of each row, (R,) float64."""
    seeds, samples = [row.seed for row in rows], [row.sample for row in rows]
    return torch.from_numpy(uniform(seeds, samples, [len(row.tokens) for row in rows]))


def invert(scores: Tensor, numbers: Tensor) -> Tensor:
    """The token at which softmax(scores), added up by token id, first exceeds each number.

    scores (R, V), numbers (R,) in [0, 1) and float64; returns (R,) token ids.
    """
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    reached = weights.cumsum(-1, dtype=torch.float64)  # (R, V)
    sought = numbers.unsqueeze(-1) * reached[:, -1:]  # (R, 1)
    return torch.searchsorted(reached, sought, right=True).squeeze(-1)


def _collect(
    logits: Tensor,
    scores: Tensor,
    rows: Sequence[Row],
    tokens: list[int],
    broken: list[bool],
    barred: list[bool],
) -> list[Draw]:
    draws = []
    for index, row in enumerate(rows):
        if broken[index]:
            draws.append(Draw(None, error=NOT_FINITE))
        elif barred[index]:
            draws.append(Draw(None, error=NOTHING_LEFT))
        elif row.sampling.logprobs is None:
            draws.append(Draw(tokens[index]))
        else:
            source = logits if row.sampling.logprobs_of == "model" else scores
            draws.append(_report(source[index], tokens[index], row.sampling.logprobs))
    return draws


def _report(scores: Tensor, token: int, count: int) -> Draw:
    """A draw with its log-probability and `count` alternatives, from logits (V,)."""
    logprobs = scores.log_softmax(-1)
    values, tokens = logprobs.topk(min(count, len(logprobs)))
    pairs = zip(tokens.tolist(), values.tolist(), strict=True)
    ordered = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
    return Draw(token, float(logprobs[token]), tuple(ordered))
