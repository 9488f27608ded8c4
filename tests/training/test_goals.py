"""What the settings of an objective become."""

import numpy
import pytest

from limner.config import read_settings
from limner.models.families import find_family
from limner.objectives.denoising import Denoising
from limner.objectives.sequence_to_sequence import Text
from limner.objectives.span_corruption import SpanCorruption
from limner.training.goals import Goal, make_objective
from tests.families import t5
from tests.training.test_pretraining import tokenizer

NOTHING = numpy.zeros(0, numpy.int64)


def objective(*words):
    network = find_family("t5").read_config(t5()).build()
    return make_objective(read_settings(Goal, None, words), network, tokenizer(), 0)


def spans(made):
    """How many spans of a text of 80 tokens are missing, and how many tokens."""
    body = numpy.arange(80) % 5
    source, target = made.corrupt(Text(NOTHING, body, NOTHING, seed=1))
    missing = numpy.isin(target, made.sentinels, invert=True).sum()
    assert len(source) == 80 - missing + len(target) - missing - 1
    return len(target) - missing - 1, missing


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (4, 12)),  # 15% in spans of 3
        (("mean_length=6",), (2, 12)),
        (("share=0.5", "mean_length=8"), (5, 40)),
        (("share=0.1", "mean_length=1"), (8, 8)),
    ],
)
def test_span_corruption_is_the_papers_unless_the_settings_say_otherwise(words, expected):
    made = objective("kind=span_corruption", *words)
    assert isinstance(made, SpanCorruption)
    assert spans(made) == expected


def test_infilling_takes_spans_of_the_length_that_the_settings_say():
    text = numpy.arange(1000) % 5
    masks = {}
    for length in (None, 3, 20):
        words = [] if length is None else [f"mean_length={length}"]
        made = objective("kind=denoising", "noises=[infill]", "share=0.4", *words)
        assert isinstance(made, Denoising)
        masks[length] = (made.damage(text, seed=0) == made.mask).sum()
    assert masks[None] == masks[3] > 5 * masks[20]


@pytest.mark.parametrize(
    "words", [("kind=masked",), ("kind=denoising", "noises=[permute]"), ("kind=next_token",)]
)
def test_a_length_of_spans_is_refused_where_there_are_none(words):
    with pytest.raises(ValueError, match=r"mean_length=4 is for kind=span_corruption") as raised:
        read_settings(Goal, None, [*words, "mean_length=4"])
    assert "\n" not in str(raised.value)


def test_a_span_has_a_token_at_least():
    with pytest.raises(ValueError, match="mean_length"):
        read_settings(Goal, None, ["kind=span_corruption", "mean_length=0.5"])


@pytest.mark.parametrize("kind", ["next_token", "prefix", "tokens_ahead", "contrastive"])
def test_a_share_is_refused_where_nothing_is_shared(kind):
    with pytest.raises(ValueError, match=rf"share=0\.3 is for .*leave it out of kind={kind}"):
        read_settings(Goal, None, [f"kind={kind}", "share=0.3"])
