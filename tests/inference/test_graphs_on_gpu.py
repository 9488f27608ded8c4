"""CUDA graphs against operators one by one: python -m pytest -m gpu, where there is a GPU."""

import logging

import pytest
import torch

from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.models.families import find_family
from tests.decoder_families import DECODERS
from tests.recurrent_families import PUBLISHED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
MODELS = DECODERS | PUBLISHED
PROMPTS = [[5, 3, 9], [1], [60, 61, 62, 63, 64, 65, 66], [7, 7], [8, 9, 10, 11], [2, 4]]
SAMPLING = Sampling(temperature=0.7, seed=1, max_tokens=9, ignore_eos=True)


def tiny(name, dtype=torch.float32):
    torch.manual_seed(0)
    fields = MODELS[name]
    network = find_family(fields["model_type"]).read_config(fields).build().eval()
    network.initialise(0.2)
    return network.to("cuda", dtype)


def answers(network, recorded=True, **options):
    """An engine that has answered, and its answers."""
    engine = Engine(network, rows=4, capacity=70, page_size=16, **options)
    assert engine.runner.recorded is not None
    engine.runner.recorded.possible = recorded
    return engine, [answer.generated for answer in engine.generate(PROMPTS, SAMPLING)]


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize(
    "name", ["llama-grouped", "gpt2", "gemma2", "gemma3", "mistral", "bloom", "falcon"]
)
def test_replayed_answers_are_those_of_operators_one_by_one(name, bits):
    network = tiny(name)
    engine, replayed = answers(network, cache_bits=bits)
    assert engine.runner.recorded.sizes
    assert replayed == answers(network, recorded=False, cache_bits=bits)[1]


@pytest.mark.parametrize("name", ["mamba", "mamba2", "rwkv"])
def test_recurrent_layers_carry_on_once_a_step(name):
    network = tiny(name)
    engine, replayed = answers(network)
    assert engine.runner.recorded.sizes
    assert replayed == answers(network, recorded=False)[1]


@torch.inference_mode()
def test_a_replayed_step_gives_the_logits_of_an_ordinary_one_in_bfloat16():
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("no bfloat16")
    network = tiny("llama-grouped", torch.bfloat16)
    logits = []
    for recorded in (True, False):
        engine = Engine(network, rows=4, capacity=70)
        assert engine.runner.recorded is not None
        engine.runner.recorded.possible = recorded
        sampling = Sampling(temperature=0, max_tokens=2, ignore_eos=True, logprobs=97)
        answer = engine.generate([[5, 3, 9]], sampling)[0]
        logits.append([p for _, p in sorted(answer.events[1].alternatives)])
    assert logits[0] == pytest.approx(logits[1], abs=0.1)


def test_a_compiled_step_is_recorded(caplog):
    caplog.set_level(logging.INFO, "limner.inference")
    network = tiny("llama-grouped")
    engine, compiled = answers(network, compiled=True)
    assert engine.runner.recorded.sizes
    assert compiled == answers(network, recorded=False)[1]
    assert "recorded as CUDA graphs" in caplog.text


def test_what_asks_the_device_runs_operator_by_operator(caplog):
    caplog.set_level(logging.INFO, "limner.inference")
    network = tiny("qwen3-moe")
    engine, stepped = answers(network)
    assert not engine.runner.recorded.possible
    assert "steps run operator by operator" in caplog.text
    assert stepped == answers(network, recorded=False)[1]
