"""Steps that are recorded and replayed, with a tape for the CPU in place of CUDA graphs."""

import logging

import pytest
import torch

from limner.inference.draft_model import DraftModel
from limner.inference.engine import Engine
from limner.inference.graphs import RecordedSteps, _Step, can_compile, refuse_questions
from limner.inference.sampling import Sampling
from limner.inference.speculation import Speculation
from limner.models.families import find_family
from limner.peft import LoraConfig, new_adapter
from tests.decoder_families import DECODERS
from tests.inference.tape import TapeRecorder
from tests.recurrent_families import PUBLISHED

MODELS = DECODERS | PUBLISHED
#: These ask how many tokens go to each expert, or how long each text is.
ASKING = ["mixtral", "deepseek", "moe", "longrope", "dynamic"]
RECORDED = [name for name in MODELS if not any(part in name for part in ASKING)]
PROMPTS = [[5, 3, 9], [1], [60, 61, 62, 63, 64, 65, 66], [7, 7], [8, 9, 10, 11], [2, 4]]
SAMPLING = Sampling(temperature=0.7, seed=1, max_tokens=9, ignore_eos=True)


def tiny(name, dtype=torch.float64, device="cpu"):
    torch.manual_seed(0)
    fields = MODELS[name]
    with torch.device(device):
        network = find_family(fields["model_type"]).read_config(fields).build().eval()
    network.initialise(0.2)
    return network.to(dtype)


def recording(network, most=32, recorder=None, **options):
    """An engine that records its steps."""
    engine = Engine(network, **{"rows": 4, "capacity": 70, "page_size": 16} | options)
    recorder = recorder or TapeRecorder()
    recorded = RecordedSteps(network, engine.runner.cache, recorder, most)
    engine.runner.recorded = recorded
    return engine, recorded


def tokens_of(sequences):
    return [sequence.generated for sequence in sequences]


@pytest.mark.parametrize(
    "name", ["llama-grouped", "gpt2", "gemma2", "mistral", "bloom", "mamba2", "rwkv"]
)
def test_replayed_answers_are_those_of_operators_one_by_one(name):
    network, recorder = tiny(name), TapeRecorder()
    engine, recorded = recording(network, recorder=recorder)
    plain = Engine(network, rows=4, capacity=70, page_size=16)
    assert tokens_of(engine.generate(PROMPTS, SAMPLING)) == (
        tokens_of(plain.generate(PROMPTS, SAMPLING))
    )
    assert recorded.possible
    assert recorder.replayed > recorder.recorded == len(recorded.sizes)


def test_rows_that_change_their_logits_read_those_of_the_replay():
    network = tiny("llama")
    settings = [
        Sampling(temperature=0, max_tokens=6, ignore_eos=True),
        Sampling(temperature=0.8, top_k=4, seed=4, max_tokens=4, ignore_eos=True, logprobs=2),
    ]

    def answers(engine):
        texts = [engine.submit([5, 3, 9 + n], how) for n, how in enumerate(settings)]
        while engine.busy:
            engine.step()
        return [[(e.token, e.logprob) for e in text.events] for text in texts]

    expected = answers(Engine(network, rows=4, capacity=70))
    for one, other in zip(answers(recording(network)[0]), expected, strict=True):
        assert [token for token, _ in one] == [token for token, _ in other]
        assert [p for _, p in one if p] == pytest.approx([p for _, p in other if p])


def test_answers_that_share_the_logits_of_a_recorded_step_draw_apart():
    network = tiny("llama")

    def answers(engine):
        first = engine.submit([5], SAMPLING)
        others = [engine.submit([5], SAMPLING, sample=n, beside=first) for n in (1, 2)]
        while engine.busy:
            engine.step()
        return tokens_of((first, *others))

    assert answers(recording(network)[0]) == answers(Engine(network, rows=4, capacity=70))


def test_guesses_are_checked_by_a_replayed_step():
    network = tiny("llama-grouped")
    prompts = PROMPTS[:2]
    expected = Engine(network, rows=4, capacity=70).generate(prompts, SAMPLING)
    guessing = Speculation(DraftModel(network, cost=0), token_cost=0)
    engine, recorded = recording(network, speculation=guessing)
    assert tokens_of(engine.generate(prompts, SAMPLING)) == tokens_of(expected)
    assert engine.statistics.accepted > 0
    assert max(rows for rows, _ in recorded.sizes) > len(prompts)


def test_few_records_serve_many_numbers_of_rows_and_lengths():
    network = tiny("bloom")  # of no longest text
    engine, recorded = recording(network, rows=9, capacity=400)
    for rows in range(1, 10):
        engine.generate([[3, 4 + row] for row in range(rows)], SAMPLING)
    # Eight pages of sixteen tokens are the fewest that are read.
    assert sorted(recorded.sizes) == [(rows, 8) for rows in (1, 2, 3, 4, 6, 8, 12)]
    engine.generate([[4] * 125], SAMPLING)
    assert recorded.sizes[-2:] == [(1, 8), (1, 16)]
    engine.generate([[5] * 300], SAMPLING)
    assert recorded.sizes[-1] == (1, 25)  # all that a row can have, not 32


def test_the_record_not_used_for_longest_is_dropped():
    network, recorder = tiny("llama"), TapeRecorder()
    engine, recorded = recording(network, most=2, recorder=recorder)
    sizes = []
    for rows in (1, 2, 1, 3, 2):
        engine.generate([[5 + row, 3] for row in range(rows)], SAMPLING)
        sizes.append([count for count, _ in recorded.sizes])
    assert sizes == [[1], [1, 2], [2, 1], [1, 3], [3, 2]]
    assert recorder.recorded == 4


def test_answers_with_an_adapter_run_operator_by_operator():
    network, recorder = tiny("llama"), TapeRecorder()
    adapter = new_adapter(network, LoraConfig("all-linear", 3))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    adapter = adapter.pack()
    plain = Engine(network, rows=4, capacity=70)
    engine, _ = recording(network, recorder=recorder)
    adapted = engine.generate(PROMPTS, SAMPLING, adapter=adapter)
    assert tokens_of(adapted) == tokens_of(plain.generate(PROMPTS, SAMPLING, adapter=adapter))
    assert recorder.recorded == 0
    engine.generate(PROMPTS, SAMPLING)
    assert recorder.recorded


def test_a_network_that_asks_the_device_runs_operator_by_operator_and_says_where(caplog):
    caplog.set_level(logging.INFO, "limner.inference")
    network = tiny("qwen3-moe")
    engine, recorded = recording(network)
    expected = Engine(network, rows=4, capacity=70).generate(PROMPTS, SAMPLING)
    assert tokens_of(engine.generate(PROMPTS, SAMPLING)) == tokens_of(expected)
    assert not recorded.possible
    (line,) = [line for line in caplog.messages if "operator by operator" in line]
    assert "bincount (mixture.py" in line


class Refusing:
    """A recorder that fails after it has done the step, as CUDA may."""

    def record(self, step):
        step()
        raise RuntimeError("operation not permitted\nwhen recording")


def test_a_step_that_cannot_be_recorded_is_done_once(caplog):
    caplog.set_level(logging.INFO, "limner.inference")
    network = tiny("mamba")
    engine, recorded = recording(network, recorder=Refusing())
    expected = Engine(network, rows=4, capacity=70).generate(PROMPTS, SAMPLING)
    assert tokens_of(engine.generate(PROMPTS, SAMPLING)) == tokens_of(expected)
    assert recorded.sizes == []
    assert "not recorded: operation not permitted" in caplog.messages[-1]


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("name", RECORDED)
@torch.inference_mode()
def test_no_numbers_go_to_or_from_the_device(name, bits):
    # A device without numbers: what must know one fails.
    network = tiny(name, torch.bfloat16, device="meta")
    if bits and not network.new_paged_cache(1, 16).can_rewind:
        pytest.skip("a recurrent layer keeps no keys")
    step = _Step(network, network.new_paged_cache(4, 70, bits=bits), rows=3, pages=2)
    step.compute()
    refuse_questions(step.compute)


@pytest.mark.parametrize(
    "asking",
    [
        lambda t: t.nonzero(),
        lambda t: t[t > 0],
        lambda t: t.sum().item(),
        lambda t: t.repeat_interleave(t),
        lambda t: t.to("meta") + torch.tensor([1, 2], device="meta"),
        lambda t: t.new_zeros(2, device="meta").copy_(t),
    ],
)
def test_what_asks_the_device_is_refused(asking):
    numbers = torch.tensor([1, 2])
    with pytest.raises(RuntimeError, match="numbers go to or from the device in"):
        refuse_questions(lambda: asking(numbers))


def test_a_compiled_step_is_one_program_that_brings_nothing_to_the_device():
    network, programs = tiny("gemma3", torch.bfloat16, device="meta"), []
    step = _Step(network, network.new_paged_cache(4, 70), rows=2, pages=2)

    def backend(program, examples):
        programs.append(program)

        def run(*inputs):
            refuse_questions(lambda: program.forward(*inputs))
            return program.forward(*inputs)

        return run

    with torch.inference_mode():
        step.compute()  # what is made once
        logits, drawn = torch.compile(step.compute, backend=backend, dynamic=False)()
    assert len(programs) == 1
    assert (logits.shape, drawn.shape) == ((2, network.config.vocabulary), (2,))


def test_old_gpus_and_a_missing_triton_leave_torch_compile_out(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "limner.inference")
    assert not can_compile((6, 1))
    assert "capability is 6.1, less than 7.0" in caplog.text
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not can_compile((9, 0))
    assert "Triton is not installed" in caplog.text
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert can_compile((7, 0))
