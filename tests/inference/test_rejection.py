"""The rejection rule brings out the network's distribution, whatever was guessed."""

import numpy as np
import pytest
import torch

from limner.inference.randomness import uniform
from limner.inference.rejection import GUESS, TEST, Guess, kept, leftover
from limner.inference.sampler import draw, invert, scored
from limner.inference.sampling import Sampling
from tests.inference.rows import Row, some_logits

DRAWS = 200_000


def numbers(position, purpose, count=DRAWS):
    return torch.from_numpy(uniform([7] * count, range(count), [position] * count, purpose))


def judge(target, draft, position):
    """Tokens (N,) and whether they had been guessed, by p and q (N, V)."""
    guessed = invert(draft.log(), numbers(position, GUESS))
    stays = kept(target, draft, guessed, numbers(position, TEST))
    other = invert(leftover(target, draft).log(), numbers(position, 0))
    return torch.where(stays, guessed, other), stays


def total_variation(tokens, probabilities):
    counts = torch.bincount(tokens, minlength=probabilities.numel()).double()
    return float((counts / counts.sum() - probabilities.flatten()).abs().sum() / 2)


def noise(probabilities, count=DRAWS):
    """The total variation that sampling alone brings, and five standard deviations more."""
    p = probabilities.flatten().numpy()
    spread = np.sqrt(p * (1 - p) / count)
    return float(spread.sum() * np.sqrt(2 / np.pi) / 2 + 5 * np.sqrt((spread**2).sum()) / 2)


SETTINGS = {
    "plain": Sampling(),
    "sharp": Sampling(temperature=0.6),
    "cut": Sampling(temperature=1.3, top_k=5, top_p=0.9),
    "penalised": Sampling(repetition_penalty=1.4, frequency_penalty=0.5, logit_bias={3: 1.0}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_kept_or_replaced_token_has_the_networks_distribution(name):
    rows = [Row(SETTINGS[name], tokens=[0, 2, 2, 5])] * 2
    both = scored(some_logits(2, 12, seed=3), rows).scores.double().softmax(-1)
    target, draft = both[:1].expand(DRAWS, -1), both[1:].expand(DRAWS, -1)
    tokens, stays = judge(target, draft, 4)
    assert total_variation(tokens, both[0]) < noise(both[0])
    agreement = float(torch.minimum(*both).sum())
    assert float(stays.double().mean()) == pytest.approx(agreement, abs=0.006)


def test_two_tokens_in_a_row_have_the_joint_distribution():
    target, draft = (some_logits(6, 6, seed).double().softmax(-1) for seed in (0, 1))
    start = torch.zeros(DRAWS, dtype=torch.long)
    first, stays = judge(target[start], draft[start], 1)
    guessed, _ = judge(target[first], draft[first], 2)
    drawn = invert(target[first].log(), numbers(2, 0))  # nothing is guessed after a wrong guess
    second = torch.where(stays, guessed, drawn)
    joint = target[0][:, None] * target
    assert total_variation(first * 6 + second, joint) < noise(joint)


def test_a_token_that_was_certain_to_be_guessed_is_judged_as_if_drawn_and_compared():
    target = some_logits(1, 8, 2).double().softmax(-1).expand(DRAWS, -1)
    certain = torch.nn.functional.one_hot(torch.tensor(3), 8).double().expand(DRAWS, -1)
    tokens, stays = judge(target, certain, 1)
    drawn = invert(target.log(), numbers(1, 0))
    assert total_variation(tokens, target[0]) < noise(target[0])
    assert float(stays.double().mean()) == pytest.approx(
        float((drawn == 3).double().mean()), abs=0.006
    )


def test_equal_distributions_keep_every_guess():
    table = some_logits(1, 8, 4).double().softmax(-1).expand(5000, -1)
    guessed = invert(table.log(), numbers(1, GUESS, 5000))
    assert bool(kept(table, table, guessed, numbers(1, TEST, 5000)).all())
    assert torch.equal(leftover(table, table), table)


def test_the_sampler_judges_the_guesses_that_it_is_given():
    count, settings = 8_000, Sampling(temperature=0.8, top_k=6)
    rows = [Row(settings, tokens=[0], sample=sample, seed=7) for sample in range(count)]
    target, draft = some_logits(2, 12, seed=5)
    q = scored(draft[None], rows[:1]).scores.double().softmax(-1)
    guessed = invert(q.log().expand(count, -1), numbers(1, GUESS, count)).tolist()
    guesses = {n: Guess(token, q[0]) for n, token in enumerate(guessed)}
    logits = target.expand(count, -1)
    tokens = torch.tensor([result.token for result in draw(logits, rows, guesses)])
    p = scored(target[None], rows[:1]).scores.double().softmax(-1)[0]
    assert total_variation(tokens, p) < noise(p, count)
    unguessed = torch.tensor([result.token for result in draw(logits, rows)])
    assert not torch.equal(tokens, unguessed)
