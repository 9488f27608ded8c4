import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.data import noise

SEEDS = st.integers(0, 2**32)
LENGTHS = st.integers(2, 200)
SENTINELS = list(range(1000, 1200))
quick = settings(max_examples=60, deadline=None)


def text(length):
    return numpy.arange(length)


@quick
@given(SEEDS, LENGTHS)
def test_masking_is_undone_and_touches_only_allowed_places(seed, length):
    random = numpy.random.default_rng(seed)
    allowed = random.random(length) < 0.5
    masking = noise.choose_masking(allowed, numpy.arange(500, 600), 999, random)
    noised = noise.mask_tokens(text(length), masking)
    assert not (masking.chosen & ~allowed).any()
    assert masking.chosen.sum() == min(max(round(0.15 * allowed.sum()), 1), allowed.sum())
    restored = noise.unmask_tokens(noised, masking, text(length)[masking.chosen])
    numpy.testing.assert_array_equal(restored, text(length))
    numpy.testing.assert_array_equal(noised[~masking.chosen], text(length)[~masking.chosen])


def test_masking_is_80_10_10():
    random = numpy.random.default_rng(0)
    length = 200_000
    masking = noise.choose_masking(numpy.ones(length, bool), numpy.arange(500, 600), 999, random)
    noised = noise.mask_tokens(text(length), masking)[masking.chosen]
    assert len(noised) == 30_000
    assert (noised == 999).mean() == pytest.approx(0.8, abs=0.01)
    assert (noised == text(length)[masking.chosen]).mean() == pytest.approx(0.1, abs=0.01)


@quick
@given(SEEDS, LENGTHS)
def test_span_corruption_is_undone(seed, length):
    spans = noise.choose_spans(length, numpy.random.default_rng(seed))
    lost = sum(end - start for start, end in spans)
    assert lost == min(max(round(0.15 * length), 1), length - 1)
    assert all(start < end for start, end in spans)
    source, target = noise.corrupt_spans(text(length), spans, SENTINELS)
    assert target[-1] == SENTINELS[len(spans)]
    assert len(source) + len(target) == length + 2 * len(spans) + 1
    restored = noise.restore_spans(source, target, SENTINELS)
    numpy.testing.assert_array_equal(restored, text(length))


def test_span_corruption_as_in_the_paper():
    # "Thank you for inviting me to your party last week" (Raffel et al. 2020, figure 2)
    words = numpy.arange(10)
    source, target = noise.corrupt_spans(words, [(2, 4), (8, 9)], [70, 71, 72])
    assert source.tolist() == [0, 1, 70, 4, 5, 6, 7, 71, 9]
    assert target.tolist() == [70, 2, 3, 71, 8, 72]
    with pytest.raises(ValueError, match="2 spans need 3 sentinels, and the tokenizer has 2"):
        noise.corrupt_spans(words, [(2, 4), (8, 9)], [70, 71])


@quick
@given(SEEDS, LENGTHS)
def test_deletion_is_undone(seed, length):
    places = numpy.random.default_rng(seed).random(length) < 0.3
    noised = noise.delete_tokens(text(length), places)
    restored = noise.insert_tokens(noised, places, text(length)[places])
    numpy.testing.assert_array_equal(restored, text(length))


@quick
@given(SEEDS, LENGTHS)
def test_infilling_is_undone(seed, length):
    spans = noise.choose_infilling(length, numpy.random.default_rng(seed))
    assert sum(end - start for start, end in spans) <= round(0.3 * length)
    noised = noise.infill(text(length), spans, 999)
    assert (noised == 999).sum() == len(spans)
    assert not ((noised[1:] == 999) & (noised[:-1] == 999)).any()
    contents = [text(length)[start:end] for start, end in spans]
    numpy.testing.assert_array_equal(noise.refill(noised, 999, contents), text(length))


def test_infilled_spans_are_poisson_distributed_with_mean_3():
    spans = noise.choose_infilling(100_000, numpy.random.default_rng(0))
    sizes = numpy.array([end - start for start, end in spans])
    assert sizes.sum() == 30_000
    assert sizes.mean() == pytest.approx(3, abs=0.1)
    assert (sizes == 0).mean() == pytest.approx(numpy.exp(-3), abs=0.01)


@quick
@given(SEEDS, st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_permutation_and_rotation_are_undone(seed, sizes):
    random = numpy.random.default_rng(seed)
    ends = numpy.cumsum(sizes).tolist()
    order = random.permutation(len(sizes)).tolist()
    tokens = text(ends[-1])
    noised = noise.permute_sentences(tokens, ends, order)
    numpy.testing.assert_array_equal(noise.unpermute_sentences(noised, ends, order), tokens)
    start = int(random.integers(0, max(len(tokens), 1)))
    numpy.testing.assert_array_equal(noise.unrotate(noise.rotate(tokens, start), start), tokens)


def test_permutation_and_rotation_by_hand():
    tokens = numpy.array([1, 2, 3, 4, 5, 6])
    assert noise.permute_sentences(tokens, [2, 3, 6], [2, 0, 1]).tolist() == [4, 5, 6, 1, 2, 3]
    assert noise.rotate(tokens, 2).tolist() == [3, 4, 5, 6, 1, 2]
