"""Draws follow the exact distribution, and depend on nothing but the row itself."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from limner.inference.sampler import NOT_FINITE, NOTHING_LEFT, draw, invert
from limner.inference.sampling import Sampling
from tests.inference.rows import Row, some_logits

WORKED = [0.2, 1.5, -0.3, 0.8, 2.1, 0.4]
WORKED_SOFTMAX = [0.066643, 0.244534, 0.040421, 0.121432, 0.445571, 0.081398]
DRAWS = 20_000


def exact_distribution(logits, setting, prompt, answer):
    """What the settings mean, in plain Python and float64."""
    scores = list(logits)
    for token, bias in setting.get("logit_bias", {}).items():
        scores[token] += bias
    repetition = setting.get("repetition_penalty", 1)
    for token in set(prompt + answer):
        scores[token] *= 1 / repetition if scores[token] > 0 else repetition
    for token in set(answer):
        scores[token] -= setting.get("frequency_penalty", 0) * answer.count(token)
        scores[token] -= setting.get("presence_penalty", 0)
    weights = [math.exp(score / setting.get("temperature", 1)) for score in scores]
    order = sorted(range(len(weights)), key=lambda token: -weights[token])
    order = order[: setting.get("top_k", len(order))]
    total, reached = sum(weights[token] for token in order), 0.0
    kept: list[int] = []
    for token in order:
        if not kept or reached < setting.get("top_p", 1) * total:
            kept.append(token)
        reached += weights[token]
    kept = [t for t in kept if weights[t] >= setting.get("min_p", 0) * weights[order[0]]]
    total = sum(weights[token] for token in kept)
    return np.array([weights[t] / total if t in kept else 0.0 for t in range(len(weights))])


def chosen(result):
    assert result.token is not None
    return result.token


def drawn(logits, sampling, prompt=(0,), answer=(), count=DRAWS):
    tokens = [*prompt, *answer]
    rows = [Row(sampling, tokens, len(prompt), seed=5, sample=n) for n in range(count)]
    repeated = torch.tensor([logits]).expand(count, -1)
    return [chosen(result) for result in draw(repeated, rows)]


@pytest.mark.parametrize(
    "setting",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 1.7},
        {"top_k": 3},
        {"top_p": 0.8},
        {"min_p": 0.2},
        {"repetition_penalty": 1.5},
        {"frequency_penalty": 0.7},
        {"presence_penalty": 1.2},
        {"logit_bias": {0: 2.0, 4: -1.0}},
        {"temperature": 1.3, "top_k": 5, "top_p": 0.9, "min_p": 0.1},
        {
            "logit_bias": {2: 1.5, 4: -0.5},
            "repetition_penalty": 1.2,
            "frequency_penalty": 0.3,
            "presence_penalty": 0.2,
            "temperature": 1.4,
            "top_k": 5,
            "top_p": 0.95,
            "min_p": 0.05,
        },
    ],
)
def test_draws_follow_the_exact_distribution(setting):
    prompt, answer = [0, 4], [1, 1, 4]
    expected = exact_distribution(WORKED, setting, prompt, answer)
    tokens = drawn(WORKED, Sampling(**setting), prompt, answer)
    counts = np.bincount(tokens, minlength=len(WORKED))
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], expected[possible] * DRAWS).pvalue > 0.001


def test_the_worked_softmax():
    assert exact_distribution(WORKED, {}, [], []) == pytest.approx(WORKED_SOFTMAX, abs=5e-7)
    row = Row(Sampling(logprobs=6))
    (result,) = draw(torch.tensor([WORKED]), [row])
    alternatives = dict(result.alternatives)
    reported = [math.exp(alternatives[token]) for token in range(6)]
    assert reported == pytest.approx(WORKED_SOFTMAX, abs=1e-6)
    assert [token for token, _ in result.alternatives] == [4, 1, 3, 5, 0, 2]


def test_temperature_zero_takes_the_best_and_the_lowest_id_among_equals():
    logits = torch.zeros(3, 1000)
    logits[0, 7] = logits[0, 900] = 1.0
    logits[1, 999] = 1.0
    rows = [Row(Sampling(temperature=0), seed=n) for n in range(3)]
    assert [result.token for result in draw(logits, rows)] == [7, 999, 0]


def test_temperature_zero_still_obeys_bias_and_penalties():
    sampling = Sampling(temperature=0, logit_bias={4: -100.0}, repetition_penalty=10.0, top_k=1)
    (result,) = draw(torch.tensor([WORKED]), [Row(sampling, [1], 1)])
    assert result.token == 3


def test_many_positions_of_one_sequence_are_as_random_as_many_samples():
    rows = [Row(Sampling(), [0] * (n + 1), 1, seed=9) for n in range(2000)]
    tokens = [chosen(result) for result in draw(torch.tensor([WORKED]).expand(2000, -1), rows)]
    counts = np.bincount(tokens, minlength=6)
    assert (
        stats.chisquare(counts, np.array(WORKED_SOFTMAX) / sum(WORKED_SOFTMAX) * 2000).pvalue
        > 0.001
    )


def test_a_row_is_the_same_in_any_company():
    settings = [
        Sampling(logprobs=3),
        Sampling(temperature=0, logprobs=0),
        Sampling(temperature=0.7, top_p=0.9, logprobs=2, logprobs_of="processed"),
        Sampling(top_k=20, frequency_penalty=1.0),
        Sampling(min_p=0.3, repetition_penalty=1.5, logprobs=5),
    ] * 4
    rows = [Row(s, [n, n + 1, 2], 1, seed=n % 3, sample=n) for n, s in enumerate(settings)]
    logits = some_logits(len(rows), 40_000)
    together = draw(logits, rows)
    alone = [draw(logits[n : n + 1], [row])[0] for n, row in enumerate(rows)]
    assert together == alone


def test_a_token_of_probability_zero_is_never_drawn():
    scores = torch.full((4, 10), -math.inf)
    scores[:, 3], scores[:, 6] = 0.0, -200.0  # the second underflows to a weight of exactly zero
    edges = torch.tensor([0.0, 2.0**-53, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert invert(scores, edges).tolist() == [3, 3, 3, 3]


def test_every_point_below_one_belongs_to_a_token():
    scores = some_logits(500, 300)
    last = torch.full((500,), 1 - 2.0**-53, dtype=torch.float64)
    assert invert(scores, last).max() < 300


def test_a_token_too_rare_for_single_precision_is_drawn_in_its_place():
    rare, weight = 150_000, 1e9
    scores = torch.zeros(1, 1 + rare)
    scores[0, 0] = math.log(weight)
    weight = 1 / float((scores - scores.max()).exp().double()[0, 1])  # as float32 has it
    wanted = torch.arange(0, rare, 3750, dtype=torch.float64)
    points = (weight + wanted + 0.5) / (weight + rare)
    assert invert(scores.expand(len(points), -1), points).tolist() == (1 + wanted).tolist()


def test_logprobs_are_the_models_own_unless_asked_otherwise():
    logits = some_logits(1, 50)
    setting: dict[str, Any] = {"temperature": 0.5, "top_k": 5, "logprobs": 50}
    (model,) = draw(logits, [Row(Sampling(**setting))])
    (other,) = draw(logits, [Row(Sampling(**setting, logprobs_of="processed"))])
    assert model.token == other.token
    assert model.logprob == pytest.approx(float(logits.log_softmax(-1)[0, model.token]))
    assert sum(math.exp(value) for _, value in other.alternatives) == pytest.approx(1)
    assert sum(value > -math.inf for _, value in other.alternatives) == 5


def test_more_alternatives_than_tokens_gives_all_and_none_are_free():
    logits = some_logits(3, 4)
    rows = [Row(Sampling(logprobs=n)) for n in (9, 0)] + [Row(Sampling())]
    all_of_them, only_chosen, off = draw(logits, rows)
    assert len(all_of_them.alternatives) == 4
    assert only_chosen.alternatives == ()
    assert only_chosen.logprob is not None
    assert off.logprob is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_broken_logits_are_an_error_of_their_own_row_only(value, temperature):
    logits = some_logits(3, 100)
    expected = draw(logits, [Row(Sampling(temperature=temperature))] * 3)
    logits[1, 5] = value
    result = draw(logits, [Row(Sampling(temperature=temperature))] * 3)
    assert (result[1].token, result[1].error) == (None, NOT_FINITE)
    assert [result[0], result[2]] == [expected[0], expected[2]]


@pytest.mark.parametrize("temperature", [0, 1])
def test_no_token_left_is_an_error_of_its_own_row_only(temperature):
    nothing = torch.zeros(100, dtype=torch.bool)
    rows = [Row(Sampling(temperature=temperature, top_p=0.5)) for _ in range(2)]
    rows[0].allowed = nothing
    first, second = draw(some_logits(2, 100), rows)
    assert (first.token, first.error) == (None, NOTHING_LEFT)
    assert second.error is None


def test_half_precision_logits_are_sampled_in_single():
    logits = some_logits(2, 1000)
    rows = [Row(Sampling(logprobs=0, seed=1)), Row(Sampling(temperature=0, logprobs=0))]
    assert draw(logits.bfloat16(), rows) == draw(logits.bfloat16().float(), rows)


def test_no_rows_no_draws():
    assert draw(torch.zeros(0, 10), []) == []
