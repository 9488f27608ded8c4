import json
import subprocess
import sys

import pytest
import torch

import limner
from limner.checkpoints.checkpoint import save_folder
from limner.language_model import memory
from limner.language_model.loading import fastest_dtype
from limner.nn.paged import PagedCache
from tests.docs.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_tiny_model(path)
    return path


@pytest.fixture
def folder(gguf, tmp_path):
    model = limner.load(gguf)
    save_folder(model.network, tmp_path / "model", model.tokenizer)
    return tmp_path / "model"


def test_a_folder_and_a_file_are_the_same_model(gguf, folder):
    one, other = limner.load(gguf), limner.load(str(folder))
    torch.testing.assert_close(one.logits("the quick"), other.logits("the quick"))
    assert other.generate("the", temperature=0, max_tokens=5).text == (
        one.generate("the", temperature=0, max_tokens=5).text
    )


def test_a_cpu_computes_in_float32_unless_told_otherwise(gguf):
    def dtype(model):
        return model.network.dtype

    assert dtype(limner.load(gguf, device="cpu")) == torch.float32
    assert dtype(limner.load(gguf, dtype="bfloat16")) == torch.bfloat16
    assert dtype(limner.load(gguf, dtype=torch.float16)) == torch.float16


def test_a_gpu_computes_in_what_it_multiplies_fastest():
    chosen = [fastest_dtype(capability) for capability in ((9, 0), (8, 0), (7, 5), (6, 1))]
    assert chosen == [torch.bfloat16, torch.bfloat16, torch.float16, torch.float32]


@pytest.mark.parametrize(
    ("fields", "defaults"),
    [
        ({"temperature": 0.6, "top_p": 0.9, "do_sample": True}, {"temperature": 0.6, "top_p": 0.9}),
        ({"do_sample": False, "temperature": 0.6}, {"temperature": 0.0}),
        ({"top_k": 20, "min_p": None, "eos_token_id": 2}, {"top_k": 20}),
    ],
)
def test_the_folders_own_generation_settings_are_the_defaults(folder, fields, defaults):
    (folder / "generation_config.json").write_text(json.dumps(fields))
    assert limner.load(folder).defaults == defaults


def test_progress_is_told_of_each_tensor(gguf):
    seen = []
    limner.load(gguf, progress=lambda *step: seen.append(step))
    stages, done, totals = zip(*seen, strict=True)
    assert set(stages) == {"loading"}
    assert list(done) == list(range(1, totals[0] + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float23"}, "unknown dtype 'float23'; did you mean 'float32'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not here"),
        ({"context": 1}, "context must be from 2 to 8192"),
        ({"context": 8193}, "not 8193"),
    ],
)
def test_impossible_options_are_refused(gguf, options, message):
    with pytest.raises(ValueError, match=message):
        limner.load(gguf, **options)


def test_impossible_activation_bits_are_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="activation_bits must be 8 or 16, not 4"):
        limner.load("no/such/model.gguf", activation_bits=4)


def test_an_answer_does_not_import_pytorchs_compiler(gguf):
    program = f"""
import sys, limner
limner.load({str(gguf)!r}, weights="int8").generate("the", max_tokens=3, ignore_eos=True)
print([name for name in sys.modules if name.startswith("torch._dynamo.")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_cache_takes_the_pages_that_fit(gguf, monkeypatch):
    network = limner.load(gguf).network
    page = network.new_paged_cache(1, 32).page_bytes
    monkeypatch.setattr(memory, "free_bytes", lambda _: page * 50)
    assert memory.pages_that_fit(network, 100, rows=16) == 40
    assert memory.pages_that_fit(network, 100, rows=3) == 12
    with pytest.raises(ValueError, match="a context of 8192 tokens needs"):
        memory.pages_that_fit(network, 8192, rows=16)


def test_a_cache_of_8_bits_takes_less_and_answers(gguf):
    small, usual = (limner.load(gguf, context=64, cache_bits=bits) for bits in (8, None))
    caches = [model.engine.scheduler.holdings.cache for model in (small, usual)]
    sizes = [cache.page_bytes for cache in caches if isinstance(cache, PagedCache)]
    assert sizes[0] < 0.5 * sizes[1]
    assert small.generate("Once", max_tokens=5, ignore_eos=True).usage.completion_tokens == 5
