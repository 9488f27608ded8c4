"""An n-gram model as sorted arrays, queried by binary search.

An n-gram's key is (the number of its words but the last in the order below) x vocabulary + the last
word, so that one 64-bit integer finds it, its prefix's number and its last word.

T tokens, V vocabulary, N order, n n-grams of one order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from limner.models.ngram.vocabulary import NGramVocabulary

Integers = NDArray[numpy.int64]
Floats = NDArray[numpy.float64]

#: Tokens scored at once.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Order:
    """The n-grams of one length, sorted by key; logarithms are to base 10, as in ARPA files.

    `logarithms` are of probabilities given the words before, interpolated already. `backoffs` are
    of what a shorter context's probability is multiplied by when a longer n-gram is not found.
    """

    keys: Integers  # (n,)
    logarithms: NDArray[numpy.float32]  # (n,)
    backoffs: NDArray[numpy.float32]  # (n,)

    def find(self, keys: Integers) -> Integers:
        """The numbers of n-grams by their `keys`; -1 for those not here and for keys below 0."""
        if not len(self.keys):
            return numpy.full(len(keys), -1)
        places = numpy.minimum(self.keys.searchsorted(keys), len(self.keys) - 1)
        return numpy.where(self.keys[places] == keys, places, -1)


class NGramModel:
    """Probabilities of the next token from the last N - 1."""

    def __init__(self, vocabulary: NGramVocabulary, orders: Sequence[Order]) -> None:
        """`orders` begin with single words, which are all of the vocabulary."""
        self.vocabulary, self.orders = vocabulary, list(orders)

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.orders)

    @property
    def counts(self) -> list[int]:
        """How many n-grams there are of each order."""
        return [len(order.keys) for order in self.orders]

    def next(self, tokens: Sequence[int]) -> Floats:
        """Natural logarithms of the probabilities of all tokens, (V,), after `tokens`.

        Begin the tokens with `vocabulary.begin` where they begin a text. They sum to 1, `<unk>`
        counted; `<s>` is never next.
        """
        self._check(tokens)
        logarithms = self.orders[0].logarithms.astype(numpy.float64)
        logarithms[self.vocabulary.begin] = -numpy.inf
        context = list(tokens[-self.order + 1 :]) if self.order > 1 else []
        for length in range(1, len(context) + 1):
            number = self._number(context[-length:])
            if number < 0:
                break  # no longer context can be known either
            logarithms += float(self.orders[length - 1].backoffs[number])
            words, found = self._followers(length, number)
            logarithms[words] = found
        return logarithms * math.log(10)

    def _number(self, words: Sequence[int]) -> int:
        """The number of one n-gram among those of its order, -1 if it is not there."""
        number = words[0]
        for order, word in zip(self.orders[1:], words[1:], strict=False):
            number = int(order.find(numpy.array([number * len(self.vocabulary) + word]))[0])
            if number < 0:
                return -1
        return number

    def _followers(self, length: int, number: int) -> tuple[Integers, NDArray[numpy.float32]]:
        """The words found after a context, and their logarithms."""
        order, radix = self.orders[length], len(self.vocabulary)
        begin, end = order.keys.searchsorted([number * radix, (number + 1) * radix])
        return order.keys[begin:end] - number * radix, order.logarithms[begin:end]

    def score(self, tokens: Sequence[int] | NDArray[Any]) -> Floats:
        """The logarithm to base 10 of each token's probability given those before it, (T,).

        Several texts may follow one another, each begun with `vocabulary.begin`, which is given and
        scores 0. Text that does not begin so is scored from no context.
        """
        self._check(tokens)
        array = numpy.asarray(tokens, numpy.int64)
        scores = numpy.empty(len(array))
        for at in range(0, len(array), _BLOCK):
            past = max(0, at - self.order + 1)
            scores[at : at + _BLOCK] = self._score(array[past : at + _BLOCK])[at - past :]
        return scores

    def _score(self, tokens: Integers) -> Floats:
        """For each token the longest n-gram found, and the backoffs of the contexts it lacks."""
        number = tokens
        scores = self.orders[0].logarithms[tokens].astype(numpy.float64)
        for length, order in enumerate(self.orders[1:], 1):
            context = numpy.concatenate(([-1], number[:-1]))  # n-grams that end just before
            number = order.find(numpy.where(context < 0, -1, context * self._radix + tokens))
            backoffs = numpy.where(context < 0, 0, self.orders[length - 1].backoffs[context])
            scores = numpy.where(number < 0, scores + backoffs, order.logarithms[number])
        scores[tokens == self.vocabulary.begin] = 0
        return scores

    @property
    def _radix(self) -> int:
        return len(self.vocabulary)

    def perplexity(self, sentences: Iterable[Sequence[int]]) -> float:
        """Perplexity a token, the end of each sentence counted, as KenLM's `query` says it.

        Raises ValueError if there are no sentences.
        """
        begin, end = self.vocabulary.begin, self.vocabulary.end
        flat = [token for sentence in sentences for token in (begin, *sentence, end)]
        predicted = len(flat) - flat.count(begin)
        if not predicted:
            raise ValueError("perplexity needs at least one sentence: the text is empty")
        return float(10 ** (-self.score(flat).sum() / predicted))

    def sample(
        self,
        random: numpy.random.Generator,
        tokens: Sequence[int] = (),
        limit: int = 100,
        temperature: float = 1.0,
    ) -> list[int]:
        """Continue a text that begins with `tokens`, until its end or by `limit` tokens.

        `<unk>` is never drawn. `temperature` divides the logarithms, 0 takes the likeliest.
        """
        text = [self.vocabulary.begin, *tokens]
        for _ in range(limit):
            token = self._draw(self.next(text), random, temperature)
            if token == self.vocabulary.end:
                break
            text.append(token)
        return text[1 + len(tokens) :]

    def _draw(self, logits: Floats, random: numpy.random.Generator, temperature: float) -> int:
        logits[self.vocabulary.unknown] = -numpy.inf
        if temperature == 0:
            return int(logits.argmax())
        weights = numpy.exp((logits - logits.max()) / temperature)
        return int(random.choice(len(weights), p=weights / weights.sum()))

    def _check(self, tokens: Sequence[int] | NDArray[Any]) -> None:
        if len(tokens) and not 0 <= min(tokens) <= max(tokens) < len(self.vocabulary):
            wrong = next(t for t in tokens if not 0 <= t < len(self.vocabulary))
            raise ValueError(
                f"token {wrong} is not in the model's vocabulary of {len(self.vocabulary)}: "
                "use the tokenizer that the model was trained with"
            )
