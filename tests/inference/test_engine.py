"""The engine's promises, one by one; `test_traffic` holds it to all of them at once."""

import pytest
import torch

from limner.inference.engine import Engine
from limner.inference.sampler import NOT_FINITE, NOTHING_LEFT
from limner.inference.sampling import Sampling
from tests.inference.fake import FakeNetwork, Letters
from tests.inference.naive import naive_answer


def engine_of(network=None, **options):
    return Engine(network or FakeNetwork(), **options)


def test_requests_are_admitted_in_the_order_they_came():
    engine = engine_of(rows=1, token_budget=64)
    sequences = [engine.submit([n, 1], Sampling(max_tokens=2)) for n in range(4)]
    order = []
    while engine.busy:
        order += [event.sequence for event in engine.step() if event.finish_reason]
    assert order == [sequence.id for sequence in sequences]


def test_a_long_prompt_does_not_hold_up_a_running_answer():
    network = FakeNetwork(context=200)
    engine = engine_of(network, rows=2, token_budget=8)
    answer = engine.submit([1], Sampling(max_tokens=30, temperature=0))
    engine.step()
    long = engine.submit([2] * 100, Sampling(max_tokens=1))
    for _ in range(14):
        (event,) = engine.step()
        assert event.sequence == answer.id
    assert {event.sequence for event in engine.step()} == {answer.id, long.id}
    assert network.steps[1:15] == [[(0, 1), (1, 7)]] * 14


def test_all_rows_share_one_forward_pass():
    network = FakeNetwork()
    engine = engine_of(network, rows=3, token_budget=64)
    engine.generate([[1], [2, 3], [4, 5, 6]], Sampling(max_tokens=3, temperature=0))
    assert network.steps == [[(0, 1), (1, 2), (2, 3)], *[[(0, 1), (1, 1), (2, 1)]] * 2]


def test_the_same_seed_gives_the_same_answer_and_samples_differ():
    engine = engine_of(rows=3)
    sampling = Sampling(seed=1, max_tokens=20)
    same = engine.generate([[1], [1]], sampling)
    other = engine.submit([1], sampling, sample=1)
    while engine.busy:
        engine.step()
    assert same[0].generated == same[1].generated
    assert same[0].generated != other.generated


def test_without_a_seed_answers_differ_and_can_be_repeated_by_the_seed_taken():
    engine = engine_of(rows=2)
    first, second = engine.generate([[1], [1]], Sampling(max_tokens=30))
    assert first.generated != second.generated
    (again,) = engine.generate([[1]], Sampling(max_tokens=30, seed=first.seed))
    assert again.generated == first.generated


def test_the_seed_and_not_the_history_of_the_engine_decides():
    sampling = Sampling(seed=4, max_tokens=10)
    engine = engine_of(rows=2)
    engine.generate([[3], [4], [5]], Sampling(max_tokens=3))
    (later,) = engine.generate([[1, 2]], sampling)
    (fresh,) = engine_of(rows=2).generate([[1, 2]], sampling)
    assert later.generated == fresh.generated


def test_an_end_token_stops_and_is_reported_without_text():
    engine = engine_of(end_tokens=[5])
    sampling = Sampling(logit_bias={5: 1000.0}, max_tokens=3)
    (answer,) = engine.generate([[1]], sampling, new_decoder=Letters)
    assert (answer.generated, answer.text, answer.finish_reason) == ([5], "", "stop")
    ignoring = Sampling(logit_bias={5: 1000.0}, max_tokens=3, ignore_eos=True)
    (answer,) = engine.generate([[1]], ignoring, new_decoder=Letters)
    assert (answer.generated, answer.finish_reason) == ([5, 5, 5], "length")
    assert answer.text == "bcbcbc"


def test_a_stop_string_across_tokens_is_cut_and_its_tokens_are_counted():
    engine = engine_of()
    letters = {"a": 1, "b": 2, "c": 3}
    answer = engine.submit([1], Sampling(stop=("abc",), max_tokens=9), decoder=Letters())
    for letter in "babc":
        answer.allowed = torch.arange(12) == letters[letter]
        engine.step()
    assert (answer.text, answer.finish_reason, len(answer.generated)) == ("b", "stop", 4)
    assert [event.text for event in answer.events] == ["b", "", "", ""]


def test_held_back_text_comes_when_the_length_ends_the_answer():
    engine = engine_of()
    only = torch.arange(12) == 1
    answer = engine.submit(
        [1], Sampling(stop=("aaab",), max_tokens=3), decoder=Letters(), allowed=only
    )
    while engine.busy:
        engine.step()
    assert (answer.text, answer.finish_reason) == ("aaa", "length")


def test_a_cancelled_sequence_frees_its_row_at_once_and_is_reported_once():
    engine = engine_of(rows=1)
    first, second = engine.submit([1]), engine.submit([2], Sampling(max_tokens=1))
    engine.step()
    engine.cancel(first)
    engine.cancel(first)
    assert first.finish_reason == "cancelled"
    events = engine.step()
    assert [(event.sequence, event.finish_reason) for event in events] == [
        (first.id, "cancelled"),
        (second.id, "length"),
    ]
    engine.cancel(second)
    assert second.finish_reason == "length"
    assert not engine.busy


def test_a_sequence_cancelled_during_a_step_leaves_the_others_as_they_are():
    network = FakeNetwork()
    engine = engine_of(network, rows=2)
    sampling = Sampling(max_tokens=4, temperature=0)
    dropped, other = engine.submit([1]), engine.submit([2], sampling)
    engine.step()
    network.interrupt = lambda: engine.cancel(dropped)
    while engine.busy:
        engine.step()
    assert (dropped.finish_reason, len(dropped.generated)) == ("cancelled", 1)
    assert other.generated == naive_answer(network.next_logits, [2], sampling, context=40).tokens
    assert network.cache.lengths == [0, 0]


def test_a_waiting_sequence_can_be_cancelled():
    engine = engine_of(rows=1)
    engine.submit([1], Sampling(max_tokens=2))
    waiting = engine.submit([2])
    engine.cancel(waiting)
    while engine.busy:
        engine.step()
    assert (waiting.generated, waiting.finish_reason) == ([], "cancelled")


def test_broken_logits_end_their_own_sequence_only():
    network = FakeNetwork(poison=7)
    engine = engine_of(network)
    broken, healthy = engine.generate([[1, 7], [1, 2]], Sampling(max_tokens=4, temperature=0))
    assert (broken.finish_reason, broken.error, broken.generated) == ("error", NOT_FINITE, [])
    expected = naive_answer(
        network.next_logits, [1, 2], Sampling(max_tokens=4, temperature=0), context=40
    )
    assert healthy.generated == expected.tokens


def test_a_mask_that_allows_nothing_is_an_error_of_its_sequence():
    engine = engine_of()
    answer = engine.submit([1], allowed=torch.zeros(12, dtype=torch.bool))
    (event,) = engine.step()
    assert (event.error, answer.finish_reason) == (NOTHING_LEFT, "error")


def test_an_interrupted_generation_leaves_nothing_behind():
    network = FakeNetwork()
    engine = engine_of(network)

    def interrupt():
        raise KeyboardInterrupt

    network.interrupt = interrupt
    with pytest.raises(KeyboardInterrupt):
        engine.generate([[1], [2]])
    network.interrupt = lambda: None
    assert {event.finish_reason for event in engine.step()} == {"cancelled"}
    assert not engine.busy
    assert network.cache.lengths == [0] * 16


def test_a_stream_gives_the_events_of_its_sequence_while_others_move_on():
    engine = engine_of(rows=2)
    other = engine.submit([2], Sampling(max_tokens=20, temperature=0))
    sampling = Sampling(max_tokens=5, temperature=0)
    tokens = [event.token for event in engine.stream([1], sampling)]
    assert tokens == naive_answer(FakeNetwork().next_logits, [1], sampling, context=40).tokens
    assert len(other.generated) == 5
    assert not other.finished


def test_a_stream_waits_for_a_prompt_that_takes_many_steps():
    engine = engine_of(rows=1, token_budget=3)
    tokens = [event.token for event in engine.stream([1] * 20, Sampling(max_tokens=2))]
    assert len(tokens) == 2


def test_streams_can_be_read_in_turn():
    engine = engine_of(rows=2)
    sampling = Sampling(max_tokens=6, temperature=0)
    streams = [engine.stream([n], sampling, decoder=Letters()) for n in (1, 2)]
    pairs = list(zip(*streams, strict=True))
    for n, events in enumerate(zip(*pairs, strict=True)):
        expected = naive_answer(FakeNetwork().next_logits, [n + 1], sampling, context=40)
        assert [event.token for event in events] == expected.tokens
        assert "".join(event.text for event in events) == expected.text


def test_closing_a_stream_cancels_its_sequence():
    engine = engine_of()
    stream = engine.stream([1])
    next(stream)
    stream.close()
    assert [event.finish_reason for event in engine.step()] == ["cancelled"]
    assert not engine.busy


def test_a_cancelled_stream_ends_with_the_cancellation():
    engine = engine_of()
    sequence = engine.submit([1])
    stream = engine.follow(sequence)
    next(stream)
    engine.cancel(sequence)
    assert [event.finish_reason for event in stream] == ["cancelled"]
