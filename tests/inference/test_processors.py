"""Each rule against transformers' processor of the same name, and against its own definition."""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers.generation import logits_process

from limner.inference.processors import CUTS, PENALTIES, process
from limner.inference.sampling import Sampling
from tests.inference.rows import Row, some_logits

VOCABULARY = 600


def processed(logits, rows):
    return process(logits, rows, (*PENALTIES, *CUTS))


def as_distribution(logits):
    return logits.double().softmax(-1)


@pytest.mark.parametrize(
    ("setting", "reference"),
    [
        ({"temperature": 0.3}, [logits_process.TemperatureLogitsWarper(0.3)]),
        ({"temperature": 2.0}, [logits_process.TemperatureLogitsWarper(2.0)]),
        ({"top_k": 7}, [logits_process.TopKLogitsWarper(7)]),
        ({"top_k": 10_000}, [logits_process.TopKLogitsWarper(VOCABULARY)]),
        ({"top_p": 0.9}, [logits_process.TopPLogitsWarper(0.9)]),
        ({"top_p": 0.999}, [logits_process.TopPLogitsWarper(0.999)]),
        ({"top_p": 0.0}, [logits_process.TopPLogitsWarper(0.0)]),
        ({"min_p": 0.05}, [logits_process.MinPLogitsWarper(0.05)]),
        ({"repetition_penalty": 1.7}, [logits_process.RepetitionPenaltyLogitsProcessor(1.7)]),
        ({"repetition_penalty": 0.6}, [logits_process.RepetitionPenaltyLogitsProcessor(0.6)]),
        (
            {"logit_bias": {3: 4.0, 9: -2.5}},
            [logits_process.SequenceBiasLogitsProcessor([[[3], 4.0], [[9], -2.5]])],
        ),
        (
            {
                "logit_bias": {3: 4.0, 11: -1.0},
                "repetition_penalty": 1.3,
                "temperature": 0.7,
                "top_k": 40,
                "top_p": 0.8,
                "min_p": 0.02,
            },
            [
                logits_process.SequenceBiasLogitsProcessor([[[3], 4.0], [[11], -1.0]]),
                logits_process.RepetitionPenaltyLogitsProcessor(1.3),
                logits_process.TemperatureLogitsWarper(0.7),
                logits_process.TopKLogitsWarper(40),
                logits_process.TopPLogitsWarper(0.8),
                logits_process.MinPLogitsWarper(0.02),
            ],
        ),
    ],
)
@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_a_setting_means_what_it_means_in_transformers(setting, reference, spread):
    logits = some_logits(8, VOCABULARY, spread=spread)
    tokens = torch.randint(0, VOCABULARY, (8, 30), generator=torch.Generator().manual_seed(1))
    tokens[:, :2] = torch.tensor([3, 11])
    rows = [Row(Sampling(**setting), ids, 20) for ids in tokens.tolist()]
    expected = logits_process.LogitsProcessorList(reference)(
        tokens,
        logits.clone(),
    )
    ours = processed(logits, rows)
    assert (ours.isinf() == expected.isinf()).all()
    # the maximum is moved to 0 here, so float32 rounds differently
    assert_close(as_distribution(ours), as_distribution(expected), rtol=1e-5, atol=1e-7)


def test_repetition_penalty_divides_positive_and_multiplies_negative():
    logits = torch.tensor([[2.0, -2.0, 2.0, -2.0, 0.0]])
    row = Row(Sampling(repetition_penalty=2.0), [0, 1, 1, 4], 2)
    assert processed(logits, [row]).tolist() == [[1.0, -4.0, 2.0, -2.0, 0.0]]


def test_frequency_counts_and_presence_does_not_and_neither_sees_the_prompt():
    logits = torch.zeros(1, 5)
    row = Row(Sampling(frequency_penalty=0.5, presence_penalty=0.25), [4, 4, 1, 2, 1, 1], 2)
    assert processed(logits, [row]).tolist() == [[0.0, -1.75, -0.75, 0.0, 0.0]]


def test_bias_comes_before_the_repetition_penalty_as_in_transformers_and_vllm():
    row = Row(Sampling(logit_bias={1: 3.0}, repetition_penalty=2.0), [1], 1)
    assert processed(torch.tensor([[0.0, 1.0]]), [row]).tolist() == [[0.0, 2.0]]


def test_the_nucleus_is_the_fewest_tokens_that_reach_p():
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]], dtype=torch.float64).log()
    for p, kept in [(0, {1}), (0.4, {1}), (0.51, {1, 3}), (0.74, {1, 3}), (0.76, {1, 2, 3})]:
        result = processed(logits, [Row(Sampling(top_p=p))])[0]
        assert set(result.isfinite().nonzero().flatten().tolist()) == kept, p
    exact = torch.tensor([[0.25, 0.5, 0.25]], dtype=torch.float64).log()
    result = processed(exact, [Row(Sampling(top_p=0.5))])[0]
    assert result.isfinite().tolist() == [False, True, False]


@pytest.mark.parametrize("setting", [{"top_k": 3}, {"top_p": 0.5}])
def test_among_equals_the_lowest_ids_are_kept_and_no_more_than_needed(setting):
    result = processed(torch.zeros(1, 6), [Row(Sampling(**setting))])
    assert result.isfinite().tolist() == [[True, True, True, False, False, False]]


def test_a_flat_nucleus_wider_than_the_first_guess_is_found():
    logits = some_logits(2, 5000, spread=0.1)
    rows = [Row(Sampling(top_p=0.9)), Row(Sampling(top_p=0.01))]
    expected = [
        logits_process.TopPLogitsWarper(p)(torch.zeros(1, 1), row[None].clone())
        for p, row in zip((0.9, 0.01), logits, strict=True)
    ]
    assert_close(processed(logits, rows), torch.cat(expected))


def test_only_allowed_tokens_are_left_whatever_their_bias():
    allowed = torch.tensor([True, False, True])
    row = Row(Sampling(logit_bias={1: 100.0}), allowed=allowed)
    assert processed(torch.zeros(1, 3), [row]).tolist() == [[0.0, -math.inf, 0.0]]


@pytest.mark.parametrize("temperature", [1e-45, 1e-320, 1e-3, 1e30])
def test_extreme_temperatures_stay_numbers(temperature):
    result = processed(some_logits(1, 50), [Row(Sampling(temperature=temperature))])
    assert not result.isnan().any()
    assert result.max() == 0


def test_a_row_is_bit_equal_in_any_company():
    settings = [
        Sampling(),
        Sampling(top_k=5, temperature=0.5),
        Sampling(top_p=0.7),
        Sampling(min_p=0.1, repetition_penalty=1.2),
        Sampling(frequency_penalty=1, logit_bias={1: 2.0}),
        Sampling(top_p=0.9999, top_k=700),
    ]
    rows = [Row(sampling, [1, 2, 3, 4], 2) for sampling in settings]
    logits = some_logits(len(rows), 2000)
    together = processed(logits, rows)
    for index, row in enumerate(rows):
        assert torch.equal(together[index], processed(logits[index : index + 1], [row])[0])


def test_the_models_logits_are_left_as_they_were():
    logits = some_logits(2, 50)
    before = logits.clone()
    settings: dict[str, Any] = {
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.5,
        "min_p": 0.1,
        "logit_bias": {1: 1.0},
    }
    rows = [Row(Sampling(**settings, repetition_penalty=2.0)), Row(Sampling())]
    processed(logits, rows)
    assert torch.equal(logits, before)
