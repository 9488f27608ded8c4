"""Requests that cannot be answered are refused at once, in one line that says why."""

import pytest
import torch

from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from tests.inference.fake import FakeNetwork


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([], {}, "the prompt has no tokens"),
        ([1, 12], {}, r"the prompt holds token 12, but the vocabulary has 12 tokens \(0 to 11\)"),
        ([-1], {}, "the prompt holds token -1"),
        ([1] * 40, {}, "the prompt has 40 tokens but the context is 40"),
        ([1] * 41, {}, "the prompt has 41 tokens but the context is 40"),
        (
            [1] * 30,
            {"max_tokens": 11},
            "a prompt of 30 tokens and max_tokens of 11 make 41, but the context is 40: "
            "ask for at most 10",
        ),
        ([1], {"stop": ("x",)}, "stop strings such as 'x' need text"),
        ([1], {"stop_tokens": (99,)}, "stop_tokens holds token 99"),
        ([1], {"logit_bias": {12: 1.0}}, "logit_bias holds token 12"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(tokens, options, message):
    engine = Engine(FakeNetwork())
    with pytest.raises(ValueError, match="^" + message) as error:
        engine.submit(tokens, Sampling(**options))
    assert "\n" not in str(error.value)
    assert not engine.busy


def test_a_token_that_is_no_whole_number_is_refused():
    with pytest.raises(TypeError, match="float"):
        Engine(FakeNetwork()).submit([1.5])  # type: ignore[list-item]


def test_tokens_may_come_as_a_tensor():
    assert Engine(FakeNetwork()).submit(torch.tensor([3, 4])).tokens == [3, 4]


@pytest.mark.parametrize(
    "allowed", [torch.ones(11, dtype=torch.bool), torch.ones(12), torch.ones(1, 12).bool()]
)
def test_a_mask_must_fit_the_vocabulary(allowed):
    with pytest.raises(ValueError, match=r"allowed must be a bool tensor of shape \(12,\)"):
        Engine(FakeNetwork()).submit([1], allowed=allowed)


def test_what_fits_exactly_is_accepted_and_the_default_is_what_is_left():
    engine = Engine(FakeNetwork())
    full, rest = (
        engine.submit([1] * 30, Sampling(max_tokens=10)),
        engine.submit([1] * 39, Sampling(temperature=0)),
    )
    while engine.busy:
        engine.step()
    assert (len(full.generated), full.finish_reason) == (10, "length")
    assert (len(rest.generated), rest.finish_reason) == (1, "length")


def test_a_smaller_capacity_is_named_instead_of_the_context():
    engine = Engine(FakeNetwork(), capacity=20)
    with pytest.raises(
        ValueError, match="the prompt has 25 tokens but the engine's capacity is 20"
    ):
        engine.submit([1] * 25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "rows must be 1 or more, not 0"),
        ({"capacity": 1}, "capacity must be 2 tokens or more, not 1"),
        ({"rows": 9, "token_budget": 8}, "a token_budget of 8 is less than the 9 rows"),
        ({"prefix_pages": -1}, "prefix_pages must be 0 or more, not -1"),
        ({"page_size": 0}, "page_size must be 1 token or more, not 0"),
        ({"pages": 1, "capacity": 40}, "1 pages of 32 tokens cannot hold a text of 40"),
    ],
)
def test_an_engine_that_could_not_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Engine(FakeNetwork(), **options)


def test_one_refused_prompt_refuses_the_whole_list():
    engine = Engine(FakeNetwork())
    with pytest.raises(ValueError, match="no tokens"):
        engine.generate([[1], []])
    assert [event.finish_reason for event in engine.step()] == ["cancelled"]
    assert not engine.busy
