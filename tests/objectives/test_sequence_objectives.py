import math

import numpy
import pytest
from tokenizers import AddedToken

from limner.data.noise import restore_spans
from limner.objectives.denoising import Denoising
from limner.objectives.sequence_to_sequence import Text, texts
from limner.objectives.span_corruption import SpanCorruption
from limner.objectives.vocabulary import SENTINEL, sentence_ends
from limner.tokenizers import Tokenizer
from tests.families import bart, t5
from tests.objectives.batches import assert_same_training, loss_and_gradients, network, padded
from tests.tokenizers.samples import byte_level_engine, wordpiece

NOISES = ("permute", "rotate", "infill", "delete", "mask")


@pytest.fixture(scope="module")
def tokenizer():
    engine = byte_level_engine()
    names = ["<mask>", *[SENTINEL.format(n) for n in range(20)]]
    engine.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return Tokenizer(engine, roles={"eos_token": "</s>", "mask_token": "<mask>"})


@pytest.fixture
def batch(tokenizer):
    return padded(vocabulary=tokenizer.vocabulary_size - 50)


def small(fields, tokenizer, **changes):
    return network(fields | {"vocab_size": tokenizer.vocabulary_size} | changes)


def objectives(tokenizer):
    return {
        "span corruption": (SpanCorruption(tokenizer), small(t5(), tokenizer)),
        "denoising": (Denoising(tokenizer, NOISES), small(bart(), tokenizer)),
    }


@pytest.mark.parametrize("name", ["span corruption", "denoising"])
def test_ragged_micro_batches_equal_one_batch(tokenizer, batch, name):
    objective, model = objectives(tokenizer)[name]
    whole = loss_and_gradients(objective, model, batch)
    assert math.isfinite(whole[0])
    assert_same_training(whole, loss_and_gradients(objective, model, *batch.split(3)))


def test_spans_and_source_together_are_the_text(tokenizer, batch):
    objective = SpanCorruption(tokenizer)
    for text in texts(batch, objective.special):
        source, target = objective.corrupt(text)
        restored = restore_spans(source, target, objective.sentinels)
        whole = numpy.concatenate([text.before, text.body, text.after])
        numpy.testing.assert_array_equal(restored, whole)
        closing = len(target) - len(text.after) - 1
        assert target[closing] in objective.sentinels


def test_the_one_span_of_a_short_text_is_lost_anywhere_in_it(tokenizer):
    objective = SpanCorruption(tokenizer, mean_length=1.0)
    nothing = numpy.zeros(0, numpy.int64)
    body = numpy.arange(100, 106)
    places = []
    for seed in range(120):
        source, _ = objective.corrupt(Text(nothing, body, nothing, seed))
        places.append(source.tolist().index(objective.sentinels[0]))
    # Each of the six places is hit 20 times on average, give or take 4.
    assert min(places.count(place) for place in range(6)) > 5


def test_text_is_framed_by_its_special_tokens(tokenizer):
    batch = padded(sizes=(4,), vocabulary=100)
    batch.tokens[0, 0], batch.tokens[0, 4] = tokenizer.token_id("<s>"), tokenizer.eos_id
    (text,) = texts(batch, Denoising(tokenizer).special)
    assert text.before.tolist() == [tokenizer.token_id("<s>")]
    assert text.after.tolist() == [tokenizer.eos_id]
    assert len(text.body) == 3


def test_each_noise_changes_a_text_and_keeps_what_it_should(tokenizer):
    stop = tokenizer.encode(".", add_special_tokens=False)[0]
    assert stop in sentence_ends(tokenizer)
    body = numpy.array([t for n in range(8) for t in (100 + n, 110 + n, 120 + n, stop)])
    for noise in NOISES:
        objective = Denoising(tokenizer, [noise])  # type: ignore[list-item]
        damaged = objective.damage(body, seed=1)
        numpy.testing.assert_array_equal(damaged, objective.damage(body, seed=1))
        assert damaged.tolist() != body.tolist(), noise
        if noise in ("permute", "rotate"):
            assert sorted(damaged) == sorted(body)
        elif noise == "mask":
            kept = damaged != objective.mask
            numpy.testing.assert_array_equal(damaged[kept], body[kept])
        else:
            assert len(damaged) < len(body)


def test_what_a_tokenizer_lacks_is_named(tokenizer):
    with pytest.raises(ValueError, match="the tokenizer has no sentinels"):
        SpanCorruption(wordpiece())
    with pytest.raises(ValueError, match="unknown noise 'infil'; did you mean 'infill'"):
        Denoising(tokenizer, ["infil"])  # type: ignore[list-item]
