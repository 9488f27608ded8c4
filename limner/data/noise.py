"""Noise: pure functions that damage a text, each with the one that repairs it.

What is damaged where is drawn separately (`choose_...`), from a random generator, so that a noise
itself has no chance in it. T tokens of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from limner.data.corpus import Integers

Booleans = NDArray[numpy.bool_]
Random = numpy.random.Generator
#: From where to where, the end not included; in order and not overlapping.
Span = tuple[int, int]


# Masking (Devlin et al. 2019)


class Masking(NamedTuple):
    """What masking does at each token."""

    chosen: Booleans  # (T,): to be predicted
    replaced: Booleans  # (T,): chosen, and another token stands there
    replacements: Integers  # (T,): the token that stands where replaced


def choose_masking(
    allowed: Booleans, vocabulary: Integers, mask: int, random: Random, share: float = 0.15
) -> Masking:
    """Choose `share` of the `allowed` (T,) places, at least one if any is allowed.

    Of those, 80% get the `mask` token, 10% one drawn from `vocabulary` (ordinary tokens), and 10%
    are left as they are.
    """
    places = numpy.flatnonzero(allowed)
    count = min(max(round(share * len(places)), 1), len(places))
    chosen = numpy.zeros(len(allowed), numpy.bool_)
    chosen[random.choice(places, count, replace=False)] = True
    fate = random.random(len(allowed))
    replacements = numpy.where(fate < 0.8, mask, random.choice(vocabulary, len(allowed)))
    return Masking(chosen, chosen & (fate < 0.9), replacements.astype(numpy.int64))


def mask_tokens(tokens: Integers, masking: Masking) -> Integers:
    """Tokens (T,) with the replacements where they belong."""
    return numpy.where(masking.replaced, masking.replacements, tokens)


def unmask_tokens(noised: Integers, masking: Masking, originals: Integers) -> Integers:
    """What was there before; `originals` are the tokens at the chosen places."""
    restored = noised.copy()
    restored[masking.chosen] = originals
    return restored


# Span corruption (Raffel et al. 2020)


def choose_spans(
    length: int, random: Random, share: float = 0.15, mean_length: float = 3.0
) -> list[Span]:
    """Spans that cover `share` of `length` tokens, `mean_length` long on average.

    As in T5, kept and noised stretches take turns, the first is kept, and none is empty. At least
    one token is noised and one kept; a text of fewer than two tokens has no spans.
    """
    if length < 2:
        return []
    noised = min(max(round(share * length), 1), length - 1)
    count = min(max(round(noised / mean_length), 1), noised, length - noised)
    kept = _compose(length - noised, count, random)
    lost = _compose(noised, count, random)
    ends = numpy.cumsum(numpy.stack([kept, lost], 1).reshape(-1)).tolist()
    return list(zip(ends[::2], ends[1::2], strict=True))


def _compose(total: int, parts: int, random: Random) -> Integers:
    """Cut `total` into `parts` of at least 1, all ways equally likely."""
    cuts = numpy.sort(random.choice(total - 1, parts - 1, replace=False)) + 1
    return numpy.diff(numpy.concatenate([[0], cuts, [total]])).astype(numpy.int64)


def corrupt_spans(
    tokens: Integers, spans: Sequence[Span], sentinels: Sequence[int]
) -> tuple[Integers, Integers]:
    """The text with a sentinel for each span, and the spans, each behind its sentinel.

    The target ends with one more sentinel, which says that nothing follows. Raises ValueError if
    there are fewer sentinels than that.
    """
    if len(sentinels) <= len(spans):
        raise ValueError(
            f"{len(spans)} spans need {len(spans) + 1} sentinels, and the tokenizer has "
            f"{len(sentinels)}: add sentinels, noise less, or use shorter rows"
        )
    source: list[int] = []
    target: list[int] = []
    done = 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        source += [*tokens[done:start].tolist(), sentinel]
        target += [sentinel, *tokens[start:end].tolist()]
        done = end
    source += tokens[done:].tolist()
    target.append(sentinels[len(spans)])
    return numpy.array(source, numpy.int64), numpy.array(target, numpy.int64)


def restore_spans(source: Integers, target: Integers, sentinels: Sequence[int]) -> Integers:
    """The text that `corrupt_spans` was given."""
    known = set(sentinels)
    spans: dict[int, list[int]] = {}
    current: list[int] = []
    for token in target.tolist():
        if token in known:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    restored = [t for token in source.tolist() for t in spans.get(token, [token])]
    return numpy.array(restored, numpy.int64)


# BART's other noises (Lewis et al. 2020)


def delete_tokens(tokens: Integers, places: Booleans) -> Integers:
    """Tokens without those at `places` (T,)."""
    return tokens[~places]


def insert_tokens(noised: Integers, places: Booleans, deleted: Integers) -> Integers:
    """What was there before deletion."""
    restored = numpy.empty(len(places), numpy.int64)
    restored[~places], restored[places] = noised, deleted
    return restored


def choose_infilling(
    length: int, random: Random, share: float = 0.3, mean_length: float = 3.0
) -> list[Span]:
    """Spans whose lengths are Poisson distributed, together `share` of `length` tokens.

    Some have length 0: there the model learns that nothing is missing.
    """
    budget = round(share * length)
    sizes: list[int] = []
    while sum(sizes) < budget:
        sizes.append(min(int(random.poisson(mean_length)), budget - sum(sizes)))
    free = length - sum(sizes)
    # A kept token between spans keeps them apart, so that each mask stands for one span.
    sizes = sizes[: free + 1]
    gaps = numpy.sort(random.choice(free + 1, len(sizes), replace=False))
    shifts = numpy.cumsum([0, *sizes])
    return [
        (int(gap + shift), int(gap + shift + size))
        for gap, shift, size in zip(gaps, shifts, sizes, strict=False)
    ]


def infill(tokens: Integers, spans: Sequence[Span], mask: int) -> Integers:
    """Tokens with one `mask` for each span, however long."""
    parts: list[Any] = []
    done = 0
    for start, end in spans:
        parts += [tokens[done:start], [mask]]
        done = end
    return numpy.concatenate([*parts, tokens[done:]]).astype(numpy.int64)


def refill(noised: Integers, mask: int, contents: Sequence[Integers]) -> Integers:
    """What was there before infilling, given what each mask stands for."""
    rest = iter(contents)
    parts = [next(rest) if token == mask else numpy.array([token]) for token in noised]
    return numpy.concatenate([numpy.zeros(0, numpy.int64), *parts]).astype(numpy.int64)


def permute_sentences(tokens: Integers, ends: Sequence[int], order: Sequence[int]) -> Integers:
    """The sentences that end at `ends`, the last of which is the text's, in another order."""
    assert sorted(order) == list(range(len(ends)))
    sentences = numpy.split(tokens, list(ends)[:-1])
    return numpy.concatenate([sentences[number] for number in order])


def unpermute_sentences(noised: Integers, ends: Sequence[int], order: Sequence[int]) -> Integers:
    """The sentences in their own order; `ends` are those of the text before."""
    sizes = numpy.diff([0, *ends])
    cuts = numpy.cumsum(sizes[list(order)])[:-1]
    sentences = numpy.split(noised, cuts)
    return numpy.concatenate([sentences[place] for place in numpy.argsort(order)])


def rotate(tokens: Integers, start: int) -> Integers:
    """The text begun at token `start`, what stood before it moved to the end."""
    return numpy.roll(tokens, -start)


def unrotate(noised: Integers, start: int) -> Integers:
    """The text begun where it began."""
    return numpy.roll(noised, start)
