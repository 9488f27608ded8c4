"""Answers with different adapters in one batch: each as it would be alone."""

import logging

import pytest
import torch

from limner import kernels
from limner.inference.draft_model import DraftModel
from limner.inference.engine import Engine
from limner.inference.prompt_lookup import PromptLookup
from limner.inference.sampling import Sampling
from limner.inference.speculation import Speculation
from limner.models.families import find_family
from limner.nn.packed import pack_layers, set_activation_bits
from limner.peft import LoraConfig, Use, applied, new_adapter
from tests.decoder_families import DECODERS
from tests.recurrent_families import PUBLISHED

MODELS = DECODERS | PUBLISHED
PROMPTS = [[5, 3, 9], [1], list(range(60, 79)), [7, 7], [8, 9, 10, 11], [2, 4]]
SAMPLING = Sampling(temperature=0.7, seed=1, max_tokens=9, ignore_eos=True, logprobs=2)


def tiny(name, weights="int8"):
    """A network with random weights, packed unless `weights` is None."""
    torch.manual_seed(0)
    fields = MODELS[name]
    network = find_family(fields["model_type"]).read_config(fields).build().eval()
    network.initialise(0.2)
    if weights:
        pack_layers(network, weights)
        set_activation_bits(network, 16)
    return network


def some_adapter(network, seed, rank=3, targets="all-linear"):
    """A random adapter, ready for answering."""
    adapter = new_adapter(network, LoraConfig(targets, rank))
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return adapter.pack()


def together(network, adapters, **options):
    """The events of answers to all prompts, computed beside one another."""
    engine = Engine(network, rows=4, capacity=40, token_budget=16, **options)
    sequences = [
        engine.submit(prompt, SAMPLING, adapter=adapter)
        for prompt, adapter in zip(PROMPTS, adapters, strict=True)
    ]
    while engine.busy:
        engine.step()
    return [told(sequence) for sequence in sequences]


def told(sequence):
    """What happened to a sequence, whatever its number."""
    return [(e.token, e.logprob, e.alternatives, e.finish_reason) for e in sequence.events]


def alone(network, adapters):
    """The events of each answer computed by itself."""
    found = []
    for prompt, adapter in zip(PROMPTS, adapters, strict=True):
        engine = Engine(network, rows=1, capacity=40, token_budget=16)
        found.append(told(engine.generate([prompt], SAMPLING, adapter=adapter)[0]))
    return found


@pytest.mark.skipif(kernels.current() is None, reason="only kernels give equal bits in any batch")
@pytest.mark.parametrize("weights", ["float", "int8", "int4"])
def test_adapters_share_a_batch_and_each_answer_is_equal_to_the_last_bit(weights):
    network = tiny("llama", weights)
    one, two = some_adapter(network, 1), some_adapter(network, 2, rank=8)
    adapters = [one, None, two, one, None, two]
    plain = alone(network, [None] * 6)
    answers = together(network, adapters)
    assert answers == alone(network, adapters)
    for answer, base, adapter in zip(answers, plain, adapters, strict=True):
        assert (answer == base) == (adapter is None)
    assert together(network, [None] * 6) == plain


@pytest.mark.parametrize("name", ["gpt2", "mamba", "rwkv", "gemma2", "qwen3-moe", "deepseek-v2"])
def test_every_kind_of_layer_answers_each_adapter_as_alone(name):
    network = tiny(name, None).double()
    one, two = some_adapter(network, 1).double(), some_adapter(network, 2).double()
    adapters = [one, None, two, one, None, two]
    answers, expected = together(network, adapters), alone(network, adapters)
    for answer, apart in zip(answers, expected, strict=True):
        assert [event[0] for event in answer] == [event[0] for event in apart]
        assert [event[1] for event in answer] == pytest.approx([e[1] for e in apart], abs=1e-6)


def test_the_head_can_be_adapted_too():
    network = tiny("llama", None).double()
    one = some_adapter(network, 1, targets=("lm_head",)).double()
    answers = together(network, [one, None, one, None, one, None])
    expected = alone(network, [one, None, one, None, one, None])
    assert [[e[0] for e in a] for a in answers] == [[e[0] for e in a] for a in expected]
    assert answers[0] != alone(network, [None] * 6)[0]


def test_beginnings_are_shared_by_answers_with_the_same_adapter_alone():
    network = tiny("llama")
    one, two = some_adapter(network, 1), some_adapter(network, 2)
    engine = Engine(network, rows=1, capacity=100)
    prompt = list(range(40))
    found = []
    for adapter in (one, two, None, one, two, None):
        before = engine.statistics.found
        engine.generate([prompt], Sampling(max_tokens=2), adapter=adapter)
        found.append(engine.statistics.found - before)
    assert found[:3] == [0, 0, 0]
    assert found[3:] == [32, 32, 32]


@pytest.mark.parametrize("drafter", ["lookup", "model"])
def test_answers_with_an_adapter_are_guessed_ahead_and_stay_the_same(drafter):
    network = tiny("llama", None).double()
    one = some_adapter(network, 1).double()
    adapters = [one, None, one, None, one, None]
    guessing = PromptLookup() if drafter == "lookup" else DraftModel(network, cost=0)
    answers = together(network, adapters, speculation=Speculation(guessing, token_cost=0))
    expected = alone(network, adapters)
    assert [[e[0] for e in a] for a in answers] == [[e[0] for e in a] for a in expected]


@pytest.mark.skipif(kernels.current() is None, reason="no compiled kernels")
def test_steps_are_captured_for_each_adapter_until_it_is_gone(caplog):
    caplog.set_level(logging.INFO, "limner.inference")
    network = tiny("llama")
    one = some_adapter(network, 1)
    engine = Engine(network, rows=4, capacity=40)
    captured = engine.runner.captured
    assert captured is not None
    engine.generate(PROMPTS[:2], SAMPLING, adapter=one)
    assert [sorted(steps) for steps in captured._adapted.values()] == [[2]]
    assert captured.sizes == []
    engine.submit([1], SAMPLING, adapter=one)
    engine.submit([2], SAMPLING)
    while engine.busy:
        engine.step()
    assert [sorted(steps) for steps in captured._adapted.values()] == [[1, 2]]
    assert captured.sizes == [1]
    assert "operator by operator" not in caplog.text
    del one
    assert len(captured._adapted) == 0


def test_prompts_with_an_adapter_are_read_as_alone_and_not_captured():
    network = tiny("llama")
    adapter = some_adapter(network, 1)

    def answer(engine, adapter):
        return told(engine.generate([list(range(1, 13))], SAMPLING, adapter=adapter)[0])

    engines = [Engine(network, rows=2, capacity=40, prefix_pages=0) for _ in range(2)]
    expected = [answer(engines[0], chosen) for chosen in (adapter, None)]
    for _ in range(3):
        assert [answer(engines[1], chosen) for chosen in (adapter, None)] == expected
    steps = engines[1].runner.captured
    assert steps is not None
    assert steps.prompt_sizes == [12]  # those without it


def test_an_adapter_that_is_not_ready_is_refused():
    network = tiny("llama", None)
    with pytest.raises(ValueError, match=r"call its pack\(\) first"):
        Engine(network).submit([1], adapter=new_adapter(network, LoraConfig("all-linear")))


def test_nothing_is_left_of_an_adapter_after_its_pass():
    network = tiny("llama", None)
    one = some_adapter(network, 1)
    with pytest.raises(RuntimeError), applied(network, [Use(one)]):
        raise RuntimeError
    assert not any(module._forward_hooks for module in network.modules())
