import random
from functools import cache

import numpy
import pytest

from limner.data.deduplication import (
    NearDuplicates,
    Seen,
    choose_bands,
    digest,
    pack,
    signatures,
    unpack,
)


def jaccard(one, other, run=5):
    first, second = (
        {tuple(words[start : start + run]) for start in range(len(words) - run + 1)}
        for words in (one.split(), other.split())
    )
    return len(first & second) / len(first | second)


@cache
def pairs(count=200):
    """Texts and copies of them, from hardly changed to hardly alike."""
    drawn = random.Random(0)
    made = []
    for _ in range(count):
        words = [f"w{drawn.randrange(5000)}" for _ in range(drawn.randrange(100, 400))]
        copy = list(words)
        for place in drawn.sample(range(len(words)), int(len(words) * drawn.random() * 0.12)):
            copy[place] = "changed"
        made.append((" ".join(words), " ".join(copy)))
    return made


def found(settings):
    """Whether each copy is taken for a near duplicate of its text."""
    flags = []
    for text, copy in pairs():
        first, second = signatures([text, copy], settings)
        seen = Seen(settings)
        seen.add(digest(text), first)
        flags.append(seen.similarity(second) >= settings.threshold)
    return numpy.array(flags)


def test_case_and_spaces_make_no_other_document():
    assert digest("A  text\nof two lines ") == digest("a text of TWO lines")
    assert digest("a text") != digest("a test")


def test_the_same_digest_on_every_machine():
    assert digest("Limner").hex() == "9e5b7cf82dcb1590b42121f30254dba6"


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_near_duplicates_are_found_as_exact_jaccard_finds_them(threshold):
    settings = NearDuplicates(threshold=threshold, permutations=256)
    exact = numpy.array([jaccard(*pair) for pair in pairs()])
    flags = found(settings)
    # What is no more than three standard deviations of the estimate from the threshold may fall
    # on either side; nothing else may.
    clear = abs(exact - threshold) > 3 * (threshold * (1 - threshold) / 256) ** 0.5
    assert clear.mean() > 0.5
    recall = (flags & (exact >= threshold))[clear].sum() / (exact >= threshold)[clear].sum()
    precision = (flags & (exact >= threshold))[clear].sum() / flags[clear].sum()
    assert recall >= 0.98
    assert precision == 1


def test_documents_that_share_nothing_are_never_near():
    texts = [" ".join(f"{number}x{place}" for place in range(50)) for number in range(100)]
    settings, seen = NearDuplicates(), Seen(NearDuplicates())
    for text, signature in zip(texts, signatures(texts, settings), strict=True):
        assert seen.similarity(signature) == 0
        seen.add(digest(text), signature)


def test_signatures_do_not_depend_on_what_is_signed_together():
    texts = [text for pair in pairs()[:5] for text in pair]
    together = signatures(texts, NearDuplicates())
    for text, signature in zip(texts, together, strict=True):
        numpy.testing.assert_array_equal(signatures([text], NearDuplicates())[0], signature)


def test_short_texts_are_compared_whole():
    one, same, other = signatures(["two words", "Two  words", "two worlds"], NearDuplicates())
    assert (one == same).all()
    assert (one == other).mean() < 0.1


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_miss_few_pairs_at_the_threshold(threshold):
    bands = choose_bands(NearDuplicates(threshold=threshold))
    rows = 128 // bands
    assert bands * rows <= 128
    assert (1 - threshold**rows) ** bands < 0.01


@pytest.mark.parametrize("near", [None, NearDuplicates(permutations=16)])
def test_what_was_seen_goes_through_a_file(near):
    texts = ["first text", "second text", "third text"]
    prints = signatures(texts, near) if near else [None] * 3
    kept = list(zip(map(digest, texts), prints, strict=True))
    again = list(unpack(b"".join(pack(kept)), near))
    assert [key for key, _ in again] == [key for key, _ in kept]
    if near:
        numpy.testing.assert_array_equal([row for _, row in again], prints)
