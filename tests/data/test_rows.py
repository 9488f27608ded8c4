import json
from itertools import islice, pairwise

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from limner.data.batches import batches, collate
from limner.data.corpus import corpus_of_documents
from limner.data.mixing import Mixture, shares
from limner.data.rows import NO_DOCUMENT, PackedRows, PaddedRows, RowStream, in_order

END = 9
DOCUMENTS = st.lists(st.integers(1, 25), min_size=1, max_size=8).map(
    lambda sizes: [[*range(100 * n, 100 * n + size - 1), END] for n, size in enumerate(sizes)]
)


def trained_pairs(rows):
    """Every (token, next token) that is trained on."""
    pairs: list[tuple[int, int]] = []
    for row in rows:
        batch = collate([row])
        where = batch.weights[0].bool()
        pairs += zip(batch.tokens[0][where].tolist(), batch.targets[0][where].tolist(), strict=True)
    return sorted(pairs)


def pairs_in(documents):
    return sorted(pair for d in documents for pair in pairwise(d))


@settings(max_examples=60, deadline=None)
@given(DOCUMENTS, st.integers(1, 12), st.sampled_from([PackedRows, PaddedRows]), st.floats(0, 0.99))
def test_every_token_is_predicted_once_and_from_its_own_document(documents, length, kind, shift):
    rows = kind(corpus_of_documents(documents), length)
    cut = [rows.cut(number, shift) for number in range(rows.count(shift))]
    pairs: list[tuple[int, int]] = []
    for tokens, numbers in cut:
        same = (numbers[1:] == numbers[:-1]) & (numbers[1:] != NO_DOCUMENT)
        pairs += zip(tokens[:-1][same].tolist(), tokens[1:][same].tolist(), strict=True)
    assert sorted(pairs) == pairs_in(documents)


def test_the_end_is_trained_and_what_follows_it_is_not():
    batch = next(batches(in_order(PackedRows(corpus_of_documents([[1, 2, END], [3, END]]), 6)), 2))
    assert batch.tokens.tolist() == [[1, 2, END, 3, END, 0]]
    assert batch.targets.tolist() == [[2, END, 3, END, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 0, 1, 0, 0]]
    assert batch.documents.tolist() == [[0, 0, 0, 1, 1, NO_DOCUMENT]]
    assert batch.mixed
    assert not batch.part(slice(0, 0)).mixed


def test_padded_rows_hold_one_document_each():
    rows = PaddedRows(corpus_of_documents([[1, 2, END], [3, END], [4, 5, 6, 7, 8, END]]), 4)
    batch = next(batches(in_order(rows), 9))
    assert batch.tokens.tolist() == [[1, 2, END, 0], [3, END, 0, 0], [4, 5, 6, 7], [8, END, 0, 0]]
    assert not batch.mixed


CORPUS = corpus_of_documents([[*range(10 * n, 10 * n + 7), END] for n in range(11)])


def stream(seed=0):
    return RowStream(PackedRows(CORPUS, 5), seed)


def mixture():
    other = corpus_of_documents([[7] * 30])
    return Mixture([stream(), RowStream(PackedRows(other, 5), 1)], [2, 1], seed=3)


def as_lists(rows):
    return [(row.tokens.tolist(), row.documents.tolist(), row.seed) for row in rows]


@pytest.mark.parametrize("make", [stream, mixture])
@pytest.mark.parametrize("taken", [0, 1, 17, 18, 40])
def test_a_resumed_stream_gives_the_same_rows(make, taken):
    straight = make()
    list(islice(straight, taken))
    state = json.loads(json.dumps(straight.state_dict()))
    resumed = make()
    resumed.load_state_dict(state)
    assert as_lists(islice(resumed, 60)) == as_lists(islice(straight, 60))


def test_order_depends_on_seed_and_epoch_only():
    first = as_lists(islice(stream(), 100))
    assert first == as_lists(islice(stream(), 100))
    assert first != as_lists(islice(stream(1), 100))


def test_each_epoch_trains_on_everything_in_another_order():
    rows, seen = stream(), []
    for epoch in range(3):
        gathered = []
        while rows.epoch == epoch and rows.given < len(rows._order):
            gathered.append(next(rows))
        expected = pairs_in([[*range(10 * n, 10 * n + 7), END] for n in range(11)])
        assert trained_pairs(gathered) == expected
        seen.append(as_lists(gathered))
        state = rows.state_dict() | {"epoch": epoch + 1, "given": 0}
        rows.load_state_dict(state)
    assert seen[0] != seen[1] != seen[2]


def test_another_seed_or_number_of_sources_is_refused():
    with pytest.raises(ValueError, match="shuffled with seed 0, not 1"):
        stream(1).load_state_dict(stream(0).state_dict())
    state = mixture().state_dict()
    with pytest.raises(ValueError, match="had 2 sources and now has 1"):
        Mixture([stream()], [1]).load_state_dict(state)


def test_a_mixture_keeps_its_proportions():
    rows = list(islice(mixture(), 900))
    sevens = sum((row.tokens == 7).sum() >= 4 for row in rows)
    assert 250 < sevens < 350


def test_temperature_raises_rare_sources():
    assert shares([3, 1]) == [0.75, 0.25]
    assert shares([16, 1], temperature=2) == pytest.approx([0.8, 0.2])
    with pytest.raises(ValueError, match="must be above 0, not -1"):
        shares([1, -1])


def test_splitting_leaves_nothing_out_and_shares_nothing():
    train, validation = CORPUS.split(0.25)
    parts = [corpus.read(0, len(corpus))[0] for corpus in (train, validation)]
    numpy.testing.assert_array_equal(numpy.concatenate(parts), CORPUS.read(0, len(CORPUS))[0])
    assert len(validation) == 22
    ends = validation.document_ends()
    assert ends.tolist() == [6, 14, 22]
    assert validation.documents == 3
    with pytest.raises(ValueError, match="does not split 88 tokens"):
        CORPUS.split(0.001)


def test_a_batch_splits_into_its_rows():
    batch = next(batches(in_order(PackedRows(CORPUS, 5)), 7))
    parts = list(batch.split(3))
    assert [len(part) for part in parts] == [3, 3, 1]
    torch.testing.assert_close(torch.cat([part.targets for part in parts]), batch.targets)
    assert sum((part.seeds for part in parts), ()) == batch.seeds
