"""Settings are checked when they are made, and errors name the value and its range."""

import math

import pytest

from limner.inference.sampling import Sampling


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1}, "temperature must be 0 or more, not -1"),
        ({"temperature": math.nan}, "temperature must be 0 or more, not nan"),
        ({"temperature": "hot"}, "temperature must be a number 0 or more, not 'hot'"),
        ({"top_p": 1.5}, "top_p must be from 0 to 1, not 1.5"),
        ({"min_p": -0.1}, "min_p must be from 0 to 1, not -0.1"),
        ({"top_k": -1}, "top_k must be a whole number, 0 or more; 0 keeps all tokens, not -1"),
        ({"top_k": 2.5}, "top_k must be a whole number, 0 or more; 0 keeps all tokens, not 2.5"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0, not 0"),
        ({"frequency_penalty": 3}, "frequency_penalty must be from -2 to 2, not 3"),
        ({"presence_penalty": -3}, "presence_penalty must be from -2 to 2, not -3"),
        ({"logit_bias": {4: math.inf}}, "logit_bias of token 4 must be finite or -inf, not inf"),
        ({"logit_bias": {-4: 1.0}}, "logit_bias token must be a whole number, 0 or more, not -4"),
        ({"max_tokens": 0}, "max_tokens must be a whole number, 1 or more, not 0"),
        ({"max_tokens": True}, "max_tokens must be a whole number, 1 or more, not True"),
        ({"logprobs": -1}, "logprobs must be a whole number, 0 or more, not -1"),
        ({"logprobs_of": "me"}, "logprobs_of must be 'model' or 'processed', not 'me'"),
        ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
        ({"stop": ("a", "")}, "stop holds an empty string"),
        ({"stop": (3,)}, "stop must hold strings, not 3"),
        ({"stop_tokens": ("a",)}, "stop_tokens must be a whole number, 0 or more, not 'a'"),
    ],
)
def test_a_wrong_setting_is_one_line_with_value_and_range(setting, message):
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")) as error:
        Sampling(**setting)
    assert "\n" not in str(error.value)


def test_a_lone_stop_string_is_not_taken_letter_by_letter():
    assert Sampling(stop="end").stop == ("end",)  # type: ignore[arg-type]


def test_the_ends_of_the_ranges_are_allowed():
    Sampling(temperature=0, top_p=0, min_p=1, logit_bias={0: -math.inf}, max_tokens=1, logprobs=0)
    Sampling(temperature=5, top_p=1, frequency_penalty=2, presence_penalty=-2, seed=-7)
