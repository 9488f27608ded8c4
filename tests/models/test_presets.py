"""Published shapes have the published numbers of parameters."""

import pytest

from limner.models.counting import abbreviate, count_parameters, on_meta
from limner.models.presets import preset
from limner.nn.attention import AttentionConfig
from limner.nn.mixture import idle_parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", "124.4M"),
        ("gpt2-xl", "1.558B"),
        ("gpt3-175b", "174.6B"),
        ("bert-base", "109.5M"),
        ("bert-large", "335.1M"),
        ("gpt-neox-20b", "20.55B"),
        ("bloom-176b", "176.2B"),
        ("llama-7b", "6.738B"),
        ("llama-2-70b", "68.98B"),
        ("llama-3-8b", "8.03B"),
        ("mistral-7b", "7.242B"),
        ("qwen2.5-7b", "7.616B"),
        ("qwen3-8b", "8.191B"),
        ("gemma-7b", "8.538B"),
        ("gemma-2-9b", "9.242B"),
        ("gemma-3-1b", "999.9M"),
        ("phi-3-mini", "3.821B"),
        ("roberta-large", "355.4M"),
        ("distilbert-base", "66.36M"),
        ("albert-base", "11.68M"),
        ("electra-small", "13.55M"),
        ("deberta-v3-base", "183.8M"),
        ("t5-small", "60.51M"),
        ("t5-1.1-base", "247.6M"),
        ("mt5-small", "300.2M"),
        ("bart-large", "406.3M"),
        ("mamba-130m", "129.1M"),
        ("mamba2-130m", "129M"),
        ("rwkv-4-169m", "169.3M"),
        ("whisper-tiny", "37.76M"),
        ("vit-base", "86.57M"),
        ("clip-vit-base-patch32", "151.3M"),
        ("llava-1.5-7b", "7.063B"),
    ],
)
def test_parameters_of_published_shapes(name, parameters):
    assert abbreviate(count_parameters(on_meta(preset(name)))) == parameters


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("mixtral-8x7b", 46.7, 12.9),
        ("qwen3-30b-a3b", 30.5, 3.35),
        ("deepseek-v2", 235.7, 21.4),
        ("deepseek-v3", 671.0, 37.6),
    ],
)
def test_parameters_that_a_token_meets(name, total, active):
    network = on_meta(preset(name))
    parameters = count_parameters(network)
    assert parameters / 1e9 == pytest.approx(total, abs=0.05)
    assert (parameters - idle_parameters(network)) / 1e9 == pytest.approx(active, abs=0.05)


def test_every_other_layer_of_gpt3_is_sparse():
    mixers = [block.mixer for block in preset("gpt3-175b").blocks]
    sparse = [isinstance(mixer, AttentionConfig) and bool(mixer.pattern) for mixer in mixers]
    assert sparse == [False, True] * 48


def test_an_unknown_shape_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'llama-3-8b'"):
        preset("llama3-8b")
