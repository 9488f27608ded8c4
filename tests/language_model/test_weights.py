"""What becomes of a model's matrices where kernels do not run, or have no form of them."""

import pytest
import torch

import limner
from limner.checkpoints.checkpoint import save_folder
from limner.checkpoints.quantized import FLOAT8_GRID, Grid, GroupedWeight
from limner.language_model.loading import choose_weights, kept_rows
from limner.nn.packed import PackedLinear, number_format
from limner.nn.scaled import FLOAT8, ScaledLinear, round_rows
from limner.quantization.methods import Method, quantize_network
from limner.quantization.saving import save_quantized
from limner.tokenizers import load_tokenizer
from tests.quantization.networks import texts, tiny
from tests.text_folders import tokenizer as words

GPU = torch.device("cuda")
ROWS = texts()
EIGHT = "blocks.1.feedforward.down"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    words(framed=False).save_pretrained(folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("plain")
    save_folder(tiny(), folder, tokenizer)
    return folder


def quantized(folder, tokenizer, method, grid):
    network = tiny()
    weights = quantize_network(network, Method(method, grid))
    save_quantized(network, weights, folder, "compressed-tensors", grid, tokenizer)
    return folder


@pytest.fixture(scope="module")
def float8(tmp_path_factory, tokenizer):
    return quantized(tmp_path_factory.mktemp("float8"), tokenizer, "fp8", FLOAT8_GRID)


def codes(model):
    layer = model.network.get_submodule(EIGHT)
    assert isinstance(layer, ScaledLinear)
    return layer.codes


def test_a_folder_of_floats_of_8_bits_is_kept_if_asked_for(float8):
    stored, usual = limner.load(float8, weights="stored"), limner.load(float8)
    assert codes(stored).dtype == FLOAT8
    assert number_format(stored.network) == "8-bit floats by rows"
    assert isinstance(stored.network.get_submodule(EIGHT), ScaledLinear)
    assert not isinstance(usual.network.get_submodule(EIGHT), ScaledLinear)
    close = {"atol": 1e-5, "rtol": 1e-5}
    logits = [model.network.logits(ROWS[0]) for model in (stored, usual)]
    torch.testing.assert_close(logits[0], logits[1], **close)
    answers = [
        model.generate("the cat", temperature=0, max_tokens=5).text for model in (stored, usual)
    ]
    assert answers[0] == answers[1]


def test_rounding_to_fp8_keeps_what_is_in_it_already(plain, float8):
    ours, theirs = limner.load(plain, weights="fp8"), limner.load(float8, weights="fp8")
    rounded = round_rows(tiny().get_submodule(EIGHT).weight)
    for model in (ours, theirs):
        assert torch.equal(codes(model).view(torch.uint8), rounded.codes.view(torch.uint8))
    assert type(ours.network.head.output) is torch.nn.Linear
    logits = [model.network.logits(ROWS[0]) for model in (ours, theirs)]
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "dtype", "kept"), [("fp8", "bfloat16", FLOAT8), ("int8", "bfloat16", torch.int8)]
)
def test_8_bits_by_rows_are_near_the_model_in_16(plain, weights, dtype, kept):
    model, exact = (
        limner.load(plain, weights=w, dtype=dtype).network for w in (weights, "parameters")
    )
    assert model.get_submodule(EIGHT).codes.dtype == kept
    before, after = (n.logits(ROWS[0]).float().log_softmax(-1) for n in (exact, model))
    assert (before.exp() * (before - after)).sum(-1).mean() < 0.02


def test_rows_of_int8_are_not_rounded_again(tmp_path, tokenizer):
    folder = quantized(tmp_path, tokenizer, "rtn", Grid(8, None, True))
    kept = codes(limner.load(folder, weights="int8", dtype="bfloat16"))
    weight = quantize_network(tiny(), Method("rtn", Grid(8, None, True)))[EIGHT]
    assert isinstance(weight, GroupedWeight)
    assert torch.equal(kept, (weight.codes ^ 128).view(torch.int8))
    assert isinstance(limner.load(folder).network.get_submodule(EIGHT), PackedLinear)


def test_what_a_gpu_computes_with():
    bfloat16 = torch.bfloat16
    for weights in ("auto", "stored", "float", "int8", "fp8", "parameters"):
        assert choose_weights(weights, bfloat16, GPU) is None
    message = "weights=int4 are for float32 on the CPU, not torch.bfloat16 on cuda: say int8 or fp8"
    with pytest.raises(ValueError, match=message):
        choose_weights("int4", bfloat16, GPU)
    assert set(kept_rows("auto", None, GPU)) == {FLOAT8, torch.int8}
    assert set(kept_rows("fp8", FLOAT8, GPU)) == {FLOAT8}
    assert not kept_rows("float", None, GPU)
    assert not kept_rows("parameters", None, GPU)


def test_a_layer_does_what_the_device_can_to_which_it_moves(plain, monkeypatch):
    able = "limner.nn.scaled.multiplies_float8"
    monkeypatch.setattr(able, lambda device: device.type == "meta")
    network = limner.load(plain, weights="fp8").network
    layer = network.get_submodule(EIGHT)
    assert not layer.rounds_activations
    network.to("meta")
    assert layer.codes.is_meta
    assert layer.scale.is_meta
    assert layer.rounds_activations
    assert layer(torch.ones(2, 96, device="meta", dtype=torch.bfloat16)).shape == (2, 64)
    assert not network.bfloat16().get_submodule(EIGHT).rounds_activations


def test_a_model_without_such_layers_says_so(plain, monkeypatch):
    monkeypatch.setattr("limner.quantization.loading.layers_to_quantize", lambda network: [])
    with pytest.raises(ValueError, match="family 'llama' has no layer to round"):
        limner.load(plain, weights="fp8")
