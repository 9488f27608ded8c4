"""A drafter that guesses right, wrong, or now and then, as a test needs it."""

from limner.inference.rejection import Guess
from limner.inference.sampler import draw
from limner.inference.speculation import Drafter


class Guesser(Drafter):
    """Guesses what a `FakeNetwork` will answer, but is wrong at every `wrong`-th token, if any."""

    def __init__(self, network, wrong=0):
        self.network, self.wrong = network, wrong

    def guess(self, asked):
        return [self.answer(sequence, count) for sequence, count in asked]

    def answer(self, sequence, count):
        tokens: list[int] = []
        for _ in range(count):
            place = sequence.after(tokens)
            (result,) = draw(self.network.next_logits(place.tokens)[None], [place])
            token = 0 if result.token is None else result.token
            wrong = self.wrong and len(place.tokens) % self.wrong == 0
            tokens.append((token + 1) % self.network.config.vocabulary if wrong else token)
            if sequence.constraint and (wrong or token in sequence.end_tokens):
                break  # a constraint follows nothing that leaves its form
        return [Guess(token) for token in tokens]
