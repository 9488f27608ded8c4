import json

import pytest
import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.checkpoints.quantized import FLOAT8_GRID, Grid, find_layout
from limner.kernels import PackedWeight
from limner.nn.packed import PackedLinear
from limner.nn.scaled import FLOAT8, ScaledLinear, ScaledWeight, multiply_rounded
from limner.quantization.loading import place_outliers, place_rows
from limner.quantization.methods import Method, quantize_network
from limner.quantization.outliers import OutlierLinear
from limner.quantization.saving import check_layout, save_quantized
from tests.quantization.networks import texts, tiny

CASES = [
    ("gptq", Grid(4, 32)),
    ("gptq", Grid(8, 32, True)),
    ("awq", Grid(4, 32)),
    ("compressed-tensors", Grid(4, 32, True)),
    ("compressed-tensors", Grid(4, 32)),
    ("compressed-tensors", Grid(8, 32, True)),
    ("compressed-tensors", Grid(8, None, True)),
]


@pytest.mark.parametrize(("layout", "grid"), CASES, ids=str)
def test_a_folder_opens_again_with_equal_logits(tmp_path, layout, grid):
    network, (tokens, *_) = tiny(), texts()
    weights = quantize_network(network, Method("rtn", grid))
    save_quantized(network, weights, tmp_path, layout, grid)
    checkpoint = open_checkpoint(tmp_path)
    again = checkpoint.network(weights="stored")
    query = again.get_submodule("blocks.0.mixer.query")
    assert isinstance(query, PackedLinear)
    assert isinstance(query.weight, PackedWeight)
    assert query.weight.bits == grid.bits
    torch.testing.assert_close(again.logits(tokens), network.logits(tokens), atol=1e-5, rtol=1e-5)
    name = "blocks.2.feedforward.down"
    dequantised = checkpoint.network().get_submodule(name).weight
    torch.testing.assert_close(dequantised.detach(), weights[name].dequantize())


@pytest.mark.parametrize("model_type", ["phi3", "qwen3", "gpt_neox"])
def test_fused_matrices_are_fused_in_few_bits_too(tmp_path, model_type):
    network, (tokens, *_) = tiny(model_type), texts()
    weights = quantize_network(network, Method("rtn", Grid(4, 32, True)))
    save_quantized(network, weights, tmp_path, "compressed-tensors", Grid(4, 32, True))
    again = open_checkpoint(tmp_path).network(weights="stored")
    torch.testing.assert_close(again.logits(tokens), network.logits(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [Grid(4, 32, True), Grid(8, 32, True)], ids=str)
@pytest.mark.parametrize("model_type", ["llama", "phi3"])
def test_transformers_opens_the_folder_with_equal_logits(tmp_path, grid, model_type):
    network, (tokens, *_) = tiny(model_type, pad_token_id=0), texts()
    weights = quantize_network(network, Method("rtn", grid))
    save_quantized(network, weights, tmp_path, "compressed-tensors", grid)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    plain = open_checkpoint(tmp_path).network()
    with torch.inference_mode():
        torch.testing.assert_close(
            theirs(tokens).logits, plain.logits(tokens), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gpt_neox"])
def test_floats_of_8_bits_come_back_with_equal_logits(tmp_path, model_type):
    network, (tokens, *_) = tiny(model_type), texts()
    weights = quantize_network(network, Method("fp8", FLOAT8_GRID))
    save_quantized(network, weights, tmp_path, "compressed-tensors", FLOAT8_GRID)
    checkpoint = open_checkpoint(tmp_path)
    again = checkpoint.network(weights="stored")
    place_rows(again, checkpoint, [FLOAT8])
    assert set(weights) == {
        name for name, module in again.named_modules() if isinstance(module, ScaledLinear)
    }
    for name, weight in weights.items():
        layer = again.get_submodule(name)
        assert isinstance(layer, ScaledLinear)
        assert isinstance(weight, ScaledWeight)
        assert torch.equal(layer.codes.view(torch.uint8), weight.codes.view(torch.uint8))
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(again.logits(tokens), network.logits(tokens), **close)
    plain = checkpoint.network()
    torch.testing.assert_close(plain.logits(tokens), network.logits(tokens), **close)


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
@pytest.mark.parametrize("model_type", ["llama", "phi3"])
def test_transformers_opens_floats_of_8_bits(tmp_path, model_type):
    network, (tokens, *_) = tiny(model_type, pad_token_id=0, eos_token_id=1), texts()
    weights = quantize_network(network, Method("fp8", FLOAT8_GRID))
    save_quantized(network, weights, tmp_path, "compressed-tensors", FLOAT8_GRID)
    widened = CompressedTensorsConfig(dequantize=True)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, quantization_config=widened
    )
    # As transformers opens it if not told otherwise, activations are rounded token by token too.
    rounding = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    hidden = torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        close = {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(theirs(tokens).logits, network.logits(tokens), **close)
        rounding(tokens)  # its first pass unpacks the weights
        expected = rounding.model.layers[1].mlp.down_proj(hidden)
        weight = weights["blocks.1.feedforward.down"]
        torch.testing.assert_close(multiply_rounded(hidden, weight), expected, **close)


def test_rows_of_8_bits_are_saved_as_floats_too(tmp_path):
    network, (tokens, *_) = tiny(), texts()
    quantize_network(network, Method("fp8", FLOAT8_GRID))
    save_folder(network, tmp_path)
    again = open_checkpoint(tmp_path).network()
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(again.logits(tokens), network.logits(tokens), **close)


def test_what_stays_in_float_is_named(tmp_path):
    network = tiny(intermediate_size=80)
    weights = quantize_network(network, Method("rtn", Grid(4, 32, True)))
    save_quantized(network, weights, tmp_path, "compressed-tensors", Grid(4, 32, True))
    ignored = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["ignore"]
    assert ignored == ["lm_head", *(f"model.layers.{layer}.mlp.down_proj" for layer in range(3))]


def test_outliers_come_back(tmp_path):
    network, rows = tiny(), texts()
    method = Method("outliers", Grid(8, 32, True), threshold=1.0)
    weights = quantize_network(network, method, rows)
    save_quantized(network, weights, tmp_path, "limner_outliers", method.grid)
    checkpoint = open_checkpoint(tmp_path)
    plain = checkpoint.network()
    for name, weight in weights.items():
        kept = plain.get_submodule(name).weight.detach()
        torch.testing.assert_close(kept, weight.dequantize())
    stored = checkpoint.network(weights="stored")
    place_outliers(stored, checkpoint)
    assert isinstance(stored.get_submodule("blocks.0.mixer.query"), OutlierLinear)
    close = {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(stored.logits(rows[0]), network.logits(rows[0]), **close)


def test_what_a_layout_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="AWQ folders hold 4 bits with zeros"):
        check_layout(tiny(), [], "awq", Grid(8, 32, True))
    weights = quantize_network(tiny(), Method("fp8", FLOAT8_GRID))
    with pytest.raises(ValueError, match="floats of 8 bits have no place in GPTQ folders"):
        find_layout("gptq").write(weights["blocks.0.mixer.query"])
    network = tiny("gpt2", n_embd=64, n_head=4, n_layer=2, n_positions=64)
    with pytest.raises(ValueError, match="kept in another form than rows of few bits"):
        check_layout(network, [], "gptq", Grid())


def test_numbers_too_large_for_the_folder_are_refused(tmp_path):
    network = tiny()
    with torch.no_grad():
        network.embedding.tokens.weight[3, 4] = 1e5
    weights = quantize_network(network, Method("rtn", Grid()))
    with pytest.raises(ValueError, match=r"a weight of 100000 is more than torch.float16 holds"):
        save_quantized(network, weights, tmp_path, "gptq", Grid())
