"""Guessing ahead changes how fast answers come, not what they are."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from limner.inference.draft_heads import DraftHeads
from limner.inference.draft_model import DraftModel
from limner.inference.engine import Engine
from limner.inference.prompt_lookup import PromptLookup
from limner.inference.record import Record
from limner.inference.sampling import Sampling
from limner.inference.speculation import Speculation, best_length
from tests.inference.fake import FakeNetwork, Letters
from tests.inference.guessing import Guesser
from tests.inference.naive import naive_answer
from tests.inference.test_constraints import END, FORMS, anew, grammars
from tests.inference.test_constraints import VOCABULARY as FORM_VOCABULARY
from tests.inference.test_engine_with_networks import SETTINGS, alone, some_prompts, tiny

GREEDY = Sampling(temperature=0, max_tokens=20)


def guessing(network=None, wrong=0, longest=4, **options):
    network = network or FakeNetwork()
    speculation = Speculation(Guesser(network, wrong), longest=longest, token_cost=0)
    return network, Engine(network, speculation=speculation, **options)


def test_right_guesses_take_fewer_steps_and_wrong_ones_no_more():
    for wrong, passes in ((0, (4, 6)), (1, (20, 20))):
        network, engine = guessing(wrong=wrong)
        (answer,) = engine.generate([[1, 2]], GREEDY)
        assert (
            answer.generated == naive_answer(network.next_logits, [1, 2], GREEDY, context=40).tokens
        )
        assert passes[0] <= len(network.steps) <= passes[1]


def test_what_was_guessed_and_what_was_right_is_counted():
    _, engine = guessing(wrong=1, longest=2)
    engine.generate([[1, 2]], GREEDY)
    assert engine.statistics.proposed > 0
    assert engine.statistics.accepted == 0
    _, engine = guessing(longest=2)
    engine.generate([[1, 2]], GREEDY)
    assert engine.statistics.accepted == engine.statistics.proposed > 0


@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_an_answer_to_a_seed_is_the_same_with_and_without_guesses(wrong):
    network, engine = guessing(wrong=wrong, rows=3)
    requests = [([n, 1], Sampling(seed=n, max_tokens=15, logprobs=1)) for n in range(4)]
    answers = [engine.submit(*request, speculate=n != 2) for n, request in enumerate(requests)]
    while engine.busy:
        engine.step()
    for answer, (prompt, sampling) in zip(answers, requests, strict=True):
        expected = naive_answer(network.next_logits, prompt, sampling, context=40)
        assert answer.generated == expected.tokens
        assert [event.logprob for event in answer.events] == expected.logprobs
    assert not answers[2].record.proposed
    assert all(answers[n].record.proposed for n in (0, 1, 3))


def test_a_stop_string_among_guesses_ends_the_answer():
    sampling = Sampling(seed=2, max_tokens=30, stop=("b",))
    network, engine = guessing(longest=8)
    answer = engine.submit([1], sampling, decoder=Letters())
    while engine.busy:
        engine.step()
    expected = naive_answer(network.next_logits, [1], sampling, context=40)
    assert (answer.generated, answer.text) == (expected.tokens, expected.text)
    assert answer.finish_reason == "stop"
    assert network.cache.lengths == [0] * 16
    assert engine.statistics.used == 0


def test_guesses_take_no_pages_from_others():
    network = FakeNetwork(context=32)
    speculation = Speculation(Guesser(network), longest=8, token_cost=0)
    engine = Engine(network, rows=3, pages=9, page_size=4, speculation=speculation, token_budget=16)
    sampling = Sampling(seed=1, max_tokens=20)
    answers = engine.generate([[1] * 4, [2] * 6, [3] * 8], sampling)
    for answer in answers:
        prompt = answer.tokens[: answer.prompt_length]
        expected = naive_answer(network.next_logits, prompt, sampling, context=32)
        assert answer.generated == expected.tokens


def test_a_recurrent_network_is_refused():
    network = FakeNetwork(can_rewind=False)
    with pytest.raises(ValueError, match="cannot be guessed ahead"):
        guessing(network)


@pytest.mark.parametrize("name", ["llama-grouped", "gpt2"])
@pytest.mark.parametrize("kind", ["itself", "another", "lookup"])
def test_drafters_leave_the_answers_of_real_networks_alone(name, kind):
    network = tiny(name)
    prompts = [prompt[:20] * 2 for prompt in some_prompts(4)]
    drafter = {"itself": lambda: DraftModel(network, cost=0), "lookup": PromptLookup}.get(
        kind, lambda: DraftModel(blurred(name), cost=0)
    )()
    speculation = Speculation(drafter, longest=3, token_cost=0)
    engine = Engine(network, rows=2, token_budget=20, end_tokens=[2], speculation=speculation)
    requests = [(prompt, SETTINGS[n % 4]) for n, prompt in enumerate(prompts)]
    answers = [engine.submit(*request) for request in requests]
    for turn in range(1000):
        if turn == 9 and answers[0].row is not None:
            engine.scheduler.preempt(answers[0])
        if not engine.busy:
            break
        engine.step()
    for answer, request in zip(answers, requests, strict=True):
        assert answer.generated == alone(network, *request).tokens
    if kind == "itself":
        assert engine.statistics.accepted == engine.statistics.proposed > 10


def blurred(name):
    network = tiny(name)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network


@pytest.mark.parametrize("count", [1, 2])
def test_guesses_of_a_networks_own_predictors_leave_its_answers_alone(count):
    plain = tiny("llama")
    network = replace(plain.config, predictors=plain.config.blocks[:count]).build().double()
    network.load_state_dict(plain.state_dict(), strict=False)
    for predictor in network.predictors:  # they know only what the last token is: guesses repeat
        torch.nn.init.normal_(predictor.join.weight, std=0.1)
    engine = Engine(
        network.eval(),
        rows=2,
        token_budget=12,
        speculation=Speculation(DraftHeads(cost=0), longest=3, token_cost=0),
    )
    requests = [(prompt, SETTINGS[n % 4]) for n, prompt in enumerate(some_prompts(4))]
    answers = [engine.submit(*request) for request in requests]
    while engine.busy:
        engine.step()
    for answer, request in zip(answers, requests, strict=True):
        assert answer.generated == alone_without_end(plain, *request).tokens
    assert engine.statistics.proposed > 10


def test_predictors_guess_what_they_would_say_of_the_whole_text():
    plain = tiny("llama")
    network = replace(plain.config, predictors=plain.config.blocks[:2]).build().double().eval()
    drafter = DraftHeads()
    engine = Engine(network, speculation=Speculation(drafter))
    answer = engine.submit([4, 5, 6, 7], Sampling(temperature=0, max_tokens=9))
    for _ in range(4):
        engine.step()
        ((first, second),) = drafter.guess([(answer, 2)])
        with torch.no_grad():
            tokens = torch.tensor([answer.tokens])
            hidden = network(tokens)[:, :-1]
            one = network.ahead(hidden, tokens[:, 1:], 0)
            assert first.token == int(network.head(one)[0, -1].argmax())
            after = torch.cat((tokens[:, 2:], torch.tensor([[first.token]])), 1)
            two = network.ahead(one, after, 1)
            assert second.token == int(network.head(two)[0, -1].argmax())


def alone_without_end(network, prompt, sampling):
    return alone(network, prompt, replace(sampling, ignore_eos=True))


def test_drafts_judged_by_the_rejection_rule_keep_greedy_answers():
    network = tiny("llama")
    drafter = DraftModel(network, cost=0, rejection=True)
    engine = Engine(network, speculation=Speculation(drafter, longest=3, token_cost=0))
    (answer,) = engine.generate([[4, 5, 6]], GREEDY)
    assert answer.generated == alone(network, [4, 5, 6], GREEDY).tokens
    engine.generate([[4, 5, 6]], Sampling(seed=1, max_tokens=20))
    assert engine.statistics.accepted == engine.statistics.proposed > 10  # p and q are equal


def test_a_draft_model_needs_the_same_tokens():
    other = FakeNetwork(vocabulary=13)
    with pytest.raises(ValueError, match="the draft model knows 13 tokens and the model 12"):
        Engine(FakeNetwork(), speculation=Speculation(DraftModel(other)))


def test_a_network_without_predictors_has_no_draft_heads():
    with pytest.raises(ValueError, match="no heads that predict further"):
        Engine(tiny("llama"), speculation=Speculation(DraftHeads()))


def test_prompt_lookup_finds_what_followed_and_goes_round_in_loops():
    engine = Engine(FakeNetwork())
    lookup = PromptLookup(3, 1)
    sequence = engine.submit([1, 2, 3, 4, 5, 2, 3])
    assert [g.token for g in lookup.guess([(sequence, 3)])[0]] == [4, 5, 2]
    sequence.tokens += [9]
    assert lookup.guess([(sequence, 3)]) == [[]]
    sequence.tokens += [8, 9]
    assert [g.token for g in lookup.guess([(sequence, 5)])[0]] == [8, 9, 8, 9, 8]


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8, 0.95])
def test_the_best_length_brings_the_most_tokens_in_a_simulation(share):
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(20_000, 8, generator=generator) < share
    gains = [1.0]
    for length in range(1, 9):
        tokens = 1 + right[:, :length].long().cumprod(1).sum(1).double().mean()
        gains.append(float(tokens) / (1 + 0.2 * length))
    chosen = best_length(share, 1, 8, 0.2, 0)
    assert gains[chosen] == pytest.approx(max(gains), rel=0.01)


def test_guessing_stops_with_many_rows_and_with_bad_luck_and_begins_again():
    assert best_length(0.7, 1, 8, 0.1, 0) > 0
    assert best_length(0.7, 64, 8, 0.1, 0) == 0
    record = Record()
    for _ in range(10):
        record.learn(4, 0)
    assert best_length(record.share, 1, 8, 0.15, 0) == 0
    for _ in range(200):
        record.rest()
    assert best_length(record.share, 1, 8, 0.15, 0) > 0


def test_impossible_settings_are_named():
    with pytest.raises(ValueError, match="longest must be 1 guessed token or more, not 0"):
        Speculation(PromptLookup(), longest=0)
    with pytest.raises(ValueError, match="token_cost must be a share from 0 to 1, not 2"):
        Speculation(PromptLookup(), token_cost=2)
    with pytest.raises(ValueError, match="runs of 3 to 2 tokens"):
        PromptLookup(2, 3)


@pytest.mark.parametrize("guesses", [0, 2, "model"])
@pytest.mark.parametrize("form", [form for form in FORMS if form])
def test_answers_held_to_a_form_stay_in_it_and_the_same(form, guesses):
    network = FakeNetwork(FORM_VOCABULARY, 60)
    smaller = DraftModel(FakeNetwork(FORM_VOCABULARY, 60), cost=0)
    drafter = smaller if guesses == "model" else Guesser(network, guesses)
    speculation = Speculation(drafter, longest=4, token_cost=0)
    engine = Engine(network, speculation=speculation, end_tokens=[END])
    for seed in range(3):
        sampling = Sampling(seed=seed, max_tokens=30)
        answer = engine.submit([1, 2], sampling, constraint=grammars().constraint(form))
        while engine.busy:
            engine.step()
        expected = naive_answer(
            network.next_logits, [1, 2], sampling, end_tokens=[END], context=60,
            new_constraint=partial(anew, form),
        )  # fmt: skip
        assert (answer.generated, answer.finish_reason) == (expected.tokens, expected.finish_reason)
    assert engine.statistics.proposed
