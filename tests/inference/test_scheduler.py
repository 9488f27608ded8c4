"""What the scheduler does with pages, one promise at a time; `test_traffic` mixes them all."""

import pytest

from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from tests.inference.fake import FakeNetwork
from tests.inference.naive import naive_answer

GREEDY = Sampling(temperature=0, max_tokens=4)
LONG = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


def engine_of(network=None, **options):
    return Engine(network or FakeNetwork(), page_size=4, **options)


def finish(engine):
    while engine.busy:
        engine.step()


def expected(prompt, sampling=GREEDY, sample=0):
    return naive_answer(FakeNetwork().next_logits, prompt, sampling, context=40, sample=sample)


def test_a_prompt_that_begins_like_another_is_computed_from_where_they_part():
    network = FakeNetwork()
    engine = engine_of(network, rows=1)
    for prompt in ([*LONG, 3], [*LONG[:9], 1, 1]):
        (answer,) = engine.generate([prompt], GREEDY)
        assert answer.generated == expected(prompt).tokens
    assert [work[0][1] for work in network.steps] == [11, 1, 1, 1, 3, 1, 1, 1]
    assert (engine.statistics.asked, engine.statistics.found) == (22, 8)


def test_the_same_prompt_again_computes_one_token_at_least():
    network = FakeNetwork()
    engine = engine_of(network, rows=1)
    for _ in range(2):
        (answer,) = engine.generate([LONG[:8]], GREEDY)
        assert answer.generated == expected(LONG[:8]).tokens
    assert [work[0][1] for work in network.steps] == [8, 1, 1, 1, 4, 1, 1, 1]


def test_a_conversation_goes_on_from_its_last_answer():
    network = FakeNetwork()
    engine = engine_of(network, rows=1)
    (answer,) = engine.generate([LONG], Sampling(temperature=0, max_tokens=7))
    network.steps.clear()
    engine.generate([[*answer.tokens, 1]], GREEDY)
    assert network.steps[0] == [(0, 2)]  # 16 of 18 tokens fill pages


def test_prompts_that_come_together_compute_what_they_share_once():
    network = FakeNetwork()
    engine = engine_of(network, rows=3)
    prompts = [[*LONG, 1], [*LONG, 2], [3, *LONG]]
    answers = engine.generate(prompts, GREEDY)
    assert network.steps[:2] == [[(0, 11), (1, 11)], [(0, 1), (1, 1), (2, 3)]]
    assert [answer.generated for answer in answers] == [expected(p).tokens for p in prompts]


@pytest.mark.parametrize("options", [{"reusable_prefixes": False}, {"can_rewind": False}])
def test_nothing_is_found_where_beginnings_are_not_kept_alike(options):
    network = FakeNetwork(**options)
    engine = engine_of(network, rows=1)
    engine.generate([LONG, LONG], GREEDY)
    assert engine.statistics.found == 0
    assert network.steps[0] == network.steps[4] == [(0, 10)]


def test_other_conditions_share_nothing():
    engine = engine_of(rows=1)
    for conditions in ((), ("adapter",), ("other",)):
        engine.submit(LONG, GREEDY, conditions=conditions)
        finish(engine)
    assert engine.statistics.found == 0


def test_several_answers_compute_their_prompt_once():
    network = FakeNetwork()
    engine = engine_of(network, rows=4)
    sampling = Sampling(seed=3, max_tokens=6)
    answers = [engine.submit(LONG, sampling)]
    for sample in (1, 2):
        answers.append(engine.submit(LONG, sampling, sample=sample, beside=answers[0]))
    finish(engine)
    assert network.steps == [[(0, 10)], *[[(0, 1), (1, 1), (2, 1)]] * 5]
    for sample, answer in enumerate(answers):
        assert answer.generated == expected(LONG, sampling, sample).tokens


def test_an_answer_that_finds_no_row_beside_its_leader_waits_for_one():
    network = FakeNetwork()
    engine = engine_of(network, rows=1)
    first = engine.submit(LONG, GREEDY)
    second = engine.submit(LONG, GREEDY, beside=first)
    finish(engine)
    assert first.generated == second.generated == expected(LONG).tokens
    assert network.steps == [[(0, 10)], [(0, 1)], [(0, 1)], [(0, 1)], [(0, 3)], [(0, 1)], [(0, 1)]]


def test_answers_outlive_the_one_that_was_to_compute_their_prompt():
    engine = engine_of(rows=2, token_budget=4)
    first = engine.submit(LONG, GREEDY)
    second = engine.submit(LONG, GREEDY, beside=first)
    engine.step()
    engine.cancel(first)
    finish(engine)
    assert second.generated == expected(LONG).tokens


def test_answers_to_different_prompts_are_not_put_beside_each_other():
    engine = engine_of()
    first = engine.submit(LONG, GREEDY)
    with pytest.raises(ValueError, match="sequence 0 has another prompt or other conditions"):
        engine.submit(LONG[1:], GREEDY, beside=first)


def test_the_latest_arrival_makes_room_for_the_earliest_and_is_computed_again():
    network = FakeNetwork()
    engine = engine_of(network, rows=2, capacity=20, pages=5, prefix_pages=0)
    sampling = Sampling(temperature=0, max_tokens=10)
    first, second = (engine.submit(LONG[n : n + 5], sampling) for n in (0, 4))
    while not engine.statistics.preemptions:
        engine.step()
    assert (first.row is None, second.row is None, second.computed) == (False, True, 0)
    assert engine.statistics.waiting == 1
    finish(engine)
    assert first.generated == expected(first.tokens[:5], sampling).tokens
    assert second.generated == expected(second.tokens[:5], sampling).tokens
    assert engine.statistics.used == 0


def test_nobody_is_admitted_past_one_that_does_not_fit_yet():
    engine = engine_of(rows=3, capacity=20, pages=5)
    sampling = Sampling(temperature=0, max_tokens=3)
    first = engine.submit([1] * 12, sampling)
    second = engine.submit([2] * 12, sampling)
    third = engine.submit([3], sampling)
    engine.step()
    assert [s.row is None for s in (first, second, third)] == [False, True, True]
    order = []
    while engine.busy:
        order += [event.sequence for event in engine.step() if event.finish_reason]
    assert order == [0, 1, 2]


def test_a_window_gives_back_the_pages_it_has_passed():
    engine = engine_of(FakeNetwork(context=400, window=8), rows=1, token_budget=8)
    answer = engine.submit([1] * 100, Sampling(temperature=0, max_tokens=200))
    most = 0
    while engine.busy:
        engine.step()
        most = max(most, engine.statistics.used)
    assert len(answer.generated) == 200
    assert most == 3  # what 8 tokens lie in, however long the text


def test_statistics_count_every_page():
    engine = engine_of(rows=2, capacity=20, pages=12)
    engine.submit([1] * 9, GREEDY)
    engine.step()
    figures = engine.statistics
    assert (figures.pages, figures.used, figures.cached) == (12, 3, 0)
    assert (figures.running, figures.waiting) == (1, 0)
    finish(engine)
    assert (engine.statistics.used, engine.statistics.cached) == (0, 3)


def test_what_was_read_as_part_of_a_long_text_is_not_found_for_a_short_one():
    network = FakeNetwork(rereads_at=14)
    engine = engine_of(network, rows=1)
    for prompt in (LONG, [*LONG, 3], [*LONG, *LONG], LONG):
        sampling = Sampling(temperature=0, max_tokens=8)
        (answer,) = engine.generate([prompt], sampling)
        again = naive_answer(network.next_logits, prompt, sampling, context=40)
        assert answer.generated == again.tokens
    assert engine.statistics.found > 0
