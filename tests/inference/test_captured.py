"""A replayed step gives the very numbers of the operators one by one."""

import logging

import pytest
import torch

from limner import kernels
from limner.inference.captured import CapturedSteps, filled_up
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.models.families import find_family
from limner.nn.packed import pack_layers, set_activation_bits
from tests.decoder_families import DECODERS
from tests.recurrent_families import PUBLISHED

pytestmark = pytest.mark.skipif(kernels.current() is None, reason="no compiled kernels")
MODELS = DECODERS | PUBLISHED
#: Made of kernels alone, among them biases, sandwich norms, softcaps, windows and parallel steps.
CAPTURED = ["llama", "gpt2", "gemma2", "gemma3", "qwen3", "phi3-partial", "gpt-neox", "granite"]
OTHERS = {"mamba": "conv1d", "qwen3-moe": "softmax", "bloom": "a copy"}


def tiny(name, weights="float", bits=8):
    torch.manual_seed(0)
    fields = MODELS[name]
    network = find_family(fields["model_type"]).read_config(fields).build().eval()
    network.initialise(0.2)
    pack_layers(network, weights)
    set_activation_bits(network, bits)
    return network


def answers(network, captured, prompts, **options):
    engine = Engine(network, rows=4, capacity=40, **options)
    assert engine.runner.captured is not None
    engine.runner.captured.possible &= captured
    sampling = Sampling(temperature=0.7, seed=1, max_tokens=9, ignore_eos=True, logprobs=2)
    sequences = engine.generate(prompts, sampling)
    return engine, [answer.events for answer in sequences]


PROMPTS = [[5, 3, 9], [1], [60, 61, 62, 63, 64, 65, 66], [7, 7], [8, 9, 10, 11], [2, 4]]


@pytest.mark.parametrize(("weights", "bits"), [("float", 8), ("int8", 8), ("int4", 16)])
@pytest.mark.parametrize("name", CAPTURED)
def test_captured_answers_are_equal_to_the_last_bit(name, weights, bits):
    network = tiny(name, weights, bits)
    engine, replayed = answers(network, True, PROMPTS)
    assert engine.runner.captured.sizes
    assert replayed == answers(network, False, PROMPTS)[1]


def test_steps_over_a_cache_of_8_bits_are_captured_too():
    network = tiny("llama-grouped")
    engine, replayed = answers(network, True, PROMPTS, cache_bits=8)
    assert engine.runner.captured.sizes
    assert replayed == answers(network, False, PROMPTS, cache_bits=8)[1]


def engine_of(network, captured=True, **options):
    engine = Engine(network, rows=4, capacity=40, prefix_pages=0, **options)
    steps = engine.runner.captured
    assert steps is not None
    steps.possible &= captured
    return engine, steps


def texts_of(engine, lengths):
    """Answers to a prompt of each length, one after another and then all at once."""
    prompts = [[(7 * n + place) % 60 + 1 for place in range(n)] for n in lengths]
    sampling = Sampling(temperature=0.7, seed=1, max_tokens=3, ignore_eos=True, logprobs=2)
    alone = [engine.generate([prompt], sampling)[0].events for prompt in prompts]
    together = [answer.events for answer in engine.generate(prompts, sampling)]
    return [[(e.token, e.logprob, e.alternatives) for e in one] for one in alone + together]


@pytest.mark.parametrize("name", CAPTURED)
def test_prompts_are_captured_from_the_second_of_a_size_on(name):
    network, lengths = tiny(name, "int8"), [18, 17, 9, 18, 9, 18, 17]
    plain, _ = engine_of(network, captured=False, token_budget=30)
    engine, steps = engine_of(network, token_budget=30)
    assert texts_of(engine, lengths) == texts_of(plain, lengths)
    # 17 tokens are filled up to 18; all at once they come in passes of 30 at most
    assert {9, 18, 30} >= set(steps.prompt_sizes) >= {9, 18}


@pytest.mark.parametrize("name", ["phi3-longrope", "mamba", "qwen3-moe"])
def test_prompts_that_cannot_be_captured_are_read_all_the_same(name):
    network, lengths = tiny(name, "int8"), [12, 12, 9, 12]
    plain, _ = engine_of(network, captured=False)
    engine, steps = engine_of(network)
    assert texts_of(engine, lengths) == texts_of(plain, lengths)
    assert steps.prompt_sizes == []


def test_tokens_drawn_in_the_plan_are_those_drawn_after_it():
    network = tiny("llama", "int8")
    rows = [
        Sampling(temperature=0, max_tokens=6, ignore_eos=True),
        Sampling(temperature=1.3, seed=3, max_tokens=6, ignore_eos=True),
        Sampling(temperature=0.8, top_k=4, seed=4, max_tokens=3, ignore_eos=True),
    ]

    def run(captured):
        engine, _ = engine_of(network, captured)
        texts = [engine.submit([5, 3, 9 + n], sampling) for n, sampling in enumerate(rows)]
        while not all(text.finished for text in texts):
            engine.step()  # the third keeps the plan's draws from being used while it lives
        return [text.generated for text in texts]

    assert run(True) == run(False)


def beside(engine):
    """Three answers to one prompt of a single token."""
    sampling = Sampling(temperature=0.7, seed=1, max_tokens=5, ignore_eos=True)
    first = engine.submit([5], sampling)
    others = [engine.submit([5], sampling, sample=n, beside=first) for n in (1, 2)]
    while engine.busy:
        engine.step()
    return [answer.generated for answer in (first, *others)]


def test_answers_that_share_the_logits_of_a_captured_step_draw_apart():
    network = tiny("llama", "int8")
    answers = beside(engine_of(network)[0])
    assert answers == beside(engine_of(network, captured=False)[0])
    assert len({tuple(answer) for answer in answers}) == 3


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_what_cannot_be_captured_runs_all_the_same_and_says_why(name, caplog):
    caplog.set_level(logging.INFO, "limner.inference")
    network = tiny(name)
    engine, stepped = answers(network, True, PROMPTS)
    assert not engine.runner.captured.possible
    assert "steps run operator by operator" in caplog.text
    plain = answers(network, False, PROMPTS)[1]
    assert [[e.token for e in one] for one in stepped] == [[e.token for e in one] for one in plain]


def test_few_plans_serve_many_numbers_of_rows():
    sizes = [filled_up(rows) for rows in range(1, 257)]
    assert sizes[:8] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(rows <= size < rows * 1.25 for rows, size in enumerate(sizes, start=1))
    assert len(set(sizes)) <= 30


def test_a_network_of_parameters_is_not_captured():
    network = find_family("llama").read_config(MODELS["llama"]).build()
    assert not CapturedSteps(network, network.new_paged_cache(1, 16)).possible
