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
