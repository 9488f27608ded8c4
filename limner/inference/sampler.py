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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from limner import kernels
from limner.inference.processors import CUTS, PENALTIES, Row, is_plain, process
from limner.inference.randomness import uniform
from limner.inference.rejection import Guess, kept, leftover, tests

NOT_FINITE = "the model's logits are not finite"
NOTHING_LEFT = "bias, penalties, allowed tokens and form leave no token to draw"


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


class PlainDraw(NamedTuple):
    """How rows draw that leave their logits as they are."""

    temperatures: list[float]
    numbers: list[float]
    """In [0, 1); not used at temperature 0."""


class Scored(NamedTuple):
    """Logits and what the rows' settings make of them."""

    logits: Tensor
    """(R, V), in float32 or float64."""
    scores: Tensor
    """(R, V): a token is drawn from their softmax, or is their maximum at temperature 0."""
    broken: list[bool]
    """Rows whose logits hold a NaN or an infinity."""
    barred: list[bool]
    """Rows of which no token is allowed."""


def scored(logits: Tensor, rows: Sequence[Row]) -> Scored:
    """What the tokens of every row are drawn from, by logits (R, V)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    broken: list[bool] = (~logits.amax(-1).isfinite()).tolist()
    scores = process(logits, rows, PENALTIES)
    random = [index for index, row in enumerate(rows) if not row.sampling.greedy]
    if random:
        scores = _replace(scores, random, process(_pick(scores, random), _of(rows, random), CUTS))
    return Scored(logits, scores, broken, (~scores.amax(-1).isfinite()).tolist())


def plain_draw(rows: Sequence[Row]) -> PlainDraw | None:
    """How `rows` draw, if all of them leave their logits as they are."""
    if not all(is_plain(row) for row in rows):
        return None
    temperatures, numbers = [row.sampling.temperature for row in rows], [0.0] * len(rows)
    random = [n for n, row in enumerate(rows) if not row.sampling.greedy]
    if random:
        for n, number in zip(random, _numbers(_of(rows, random)).tolist(), strict=True):
            numbers[n] = number
    return PlainDraw(temperatures, numbers)


def draw(
    logits: Tensor,
    rows: Sequence[Row],
    guesses: Mapping[int, Guess] | None = None,
    drawn: Tensor | None = None,
) -> list[Draw]:
    """Choose the next token of every row from logits (R, V), each row as if it were alone.

    Where a token was guessed, `guesses` by the number of the row, and it is known with which
    probabilities, the rejection rule keeps or replaces it. `drawn` (R,) are the tokens of rows that
    leave their logits as they are, if they are known already (`plain_draw`).

    A row whose logits hold a NaN or an infinity, or of which no token is allowed, gets an error and
    leaves the other rows as they are.
    """
    assert logits.shape[0] == len(rows)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    guesses = guesses or {}
    if drawn is not None and not guesses:
        return _report_plain(logits, rows, drawn)
    plain = [n for n, row in enumerate(rows) if n not in guesses and is_plain(row)]
    if len(plain) == len(rows):
        return _draw_plain(logits, rows)
    draws = dict(zip(plain, _draw_plain(_pick(logits, plain), _of(rows, plain)), strict=True))
    others = [n for n in range(len(rows)) if n not in draws]
    judged = {others.index(n): guess for n, guess in guesses.items()}
    changed = _draw_changed(_pick(logits, others), _of(rows, others), judged)
    draws |= zip(others, changed, strict=True)
    return [draws[n] for n in range(len(rows))]


def _draw_plain(logits: Tensor, rows: Sequence[Row]) -> list[Draw]:
    """Choose for rows that leave their logits (R, V) as they are, at any temperature."""
    if not rows:
        return []
    how = plain_draw(rows)
    assert how is not None
    temperatures = torch.tensor(how.temperatures, dtype=torch.float32, device=logits.device)
    numbers = torch.tensor(how.numbers, dtype=torch.float64, device=logits.device)
    return _report_plain(logits, rows, kernels.draw(logits, numbers, temperatures))


def _report_plain(logits: Tensor, rows: Sequence[Row], drawn: Tensor) -> list[Draw]:
    tokens: list[int] = drawn.tolist()
    scores = logits
    if any(row.sampling.logprobs_of == "processed" for row in rows):
        divisors = [row.sampling.temperature or 1.0 for row in rows]
        scores = logits / torch.tensor(divisors, device=logits.device)[:, None]
    broken = [token < 0 for token in tokens]
    return _collect(logits, scores, rows, tokens, broken, [False] * len(rows))


def _draw_changed(logits: Tensor, rows: Sequence[Row], guesses: Mapping[int, Guess]) -> list[Draw]:
    """Choose for rows whose settings change the distribution, or whose token was guessed."""
    if not rows:
        return []
    logits, scores, broken, barred = scored(logits, rows)
    tokens = scores.argmax(-1)  # the first of equal maxima
    drawn = [n for n, row in enumerate(rows) if not (row.sampling.greedy or barred[n])]
    if drawn:
        numbers = _numbers(_of(rows, drawn)).to(scores.device)
        tokens = _replace(tokens, drawn, invert(_pick(scores, drawn), numbers))
    judged = {n: guess for n, guess in guesses.items() if n in drawn}
    if judged:
        tokens = _replace(tokens, list(judged), _judge(scores, rows, judged))
    return _collect(logits, scores, rows, tokens.tolist(), broken, barred)


def _judge(scores: Tensor, rows: Sequence[Row], guesses: Mapping[int, Guess]) -> Tensor:
    """Guessed tokens, or what takes their place, by the rejection rule: (N,)."""
    judged = _of(rows, list(guesses))
    known = [g.probabilities for g in guesses.values() if g.probabilities is not None]
    draft = torch.stack(known)  # (N, V)
    target = _pick(scores, list(guesses)).double().softmax(-1)
    tokens = torch.tensor([guess.token for guess in guesses.values()], device=scores.device)
    lengths = [len(row.tokens) for row in judged]
    decide = tests([row.seed for row in judged], [row.sample for row in judged], lengths)
    numbers = _numbers(judged).to(scores.device)
    others = invert(leftover(target, draft).log(), numbers)
    return torch.where(kept(target, draft, tokens, decide.to(scores.device)), tokens, others)


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
            failure = row.constraint.failure if row.constraint else None
            draws.append(Draw(None, error=failure or NOTHING_LEFT))
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
