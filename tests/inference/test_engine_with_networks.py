"""The engine on real (tiny, random) decoders: batched and chunked equals alone and whole."""

import pytest
import torch

from limner.inference.engine import Engine
from limner.inference.sampler import NOT_FINITE
from limner.inference.sampling import Sampling
from limner.models.families import find_family
from tests.families import DECODERS, VOCABULARY
from tests.inference.naive import naive_answer

SETTINGS = [
    Sampling(temperature=0, max_tokens=12, logprobs=2),
    Sampling(seed=1, max_tokens=9, logprobs=0),
    Sampling(seed=2, temperature=0.8, top_p=0.9, top_k=40, max_tokens=20, logprobs=0),
    Sampling(seed=3, repetition_penalty=1.2, min_p=0.02, max_tokens=15, logprobs=0),
]


def tiny(name):
    torch.manual_seed(0)
    fields = DECODERS[name]
    network = find_family(fields["model_type"]).read_config(fields).build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.3)
    return network.eval().double()


def some_prompts(count=8):
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, 60, (count,), generator=generator).tolist()
    return [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def alone(network, prompt, sampling):
    def next_logits(tokens):
        return network.logits(torch.tensor([tokens]))[0, -1]

    context = network.config.context
    return naive_answer(next_logits, prompt, sampling, end_tokens=[2], context=context)


@pytest.mark.parametrize("name", ["llama", "llama-grouped", "llama-yarn", "gpt2", "gpt2-untied"])
def test_batched_and_chunked_answers_equal_those_of_the_full_pass(name):
    network, prompts = tiny(name), some_prompts()
    engine = Engine(network, rows=3, token_budget=20, end_tokens=[2])
    requests = [(prompt, SETTINGS[n % 4]) for n, prompt in enumerate(prompts)]
    answers = [engine.submit(prompt, sampling) for prompt, sampling in requests]
    put_back = False
    while engine.busy:
        engine.step()
        if not put_back and len(answers[0].generated) == 4:
            engine.scheduler.preempt(answers[0])
            put_back = True
    assert put_back
    for answer, (prompt, sampling) in zip(answers, requests, strict=True):
        expected = alone(network, prompt, sampling)
        assert answer.generated == expected.tokens
        assert answer.finish_reason == expected.finish_reason
        got = [event.logprob for event in answer.events]
        assert got == pytest.approx(expected.logprobs, abs=1e-9)


def test_logprobs_equal_what_a_trainer_computes_from_the_whole_text():
    network = tiny("llama")
    sampling = Sampling(seed=5, temperature=1.5, top_k=20, logprobs=0, max_tokens=20)
    (answer,) = Engine(network).generate([[4, 5, 6]], sampling)
    with torch.no_grad():
        logprobs = network.logits(torch.tensor([answer.tokens])).log_softmax(-1)[0]
    expected = [float(logprobs[n - 1, answer.tokens[n]]) for n in range(3, len(answer.tokens))]
    assert [event.logprob for event in answer.events] == pytest.approx(expected, abs=1e-9)


def test_a_sequence_that_breaks_does_not_break_the_next_in_its_row():
    network = tiny("llama")
    with torch.no_grad():
        network.embedding.tokens.weight[7] = torch.nan
    engine = Engine(network, rows=2)
    long = engine.submit([3] * 30, Sampling(temperature=0, max_tokens=40))
    (broken,) = engine.generate([[7] * 20], Sampling(temperature=0))
    assert broken.error == NOT_FINITE
    (later,) = engine.generate([[4, 5]], Sampling(temperature=0, max_tokens=5))
    assert later.generated == alone(network, [4, 5], Sampling(temperature=0, max_tokens=5)).tokens
    assert not long.error


def test_no_gradients_are_kept():
    network = tiny("gpt2")
    engine = Engine(network)
    engine.generate([[1, 2]], Sampling(max_tokens=2, temperature=0))
    hidden = network.logits(torch.tensor([[1, 2]]))
    hidden.sum().backward()
    assert network.embedding.tokens.weight.grad is not None
