"""Packed matrices in GGUF files, as gguf-py and we ourselves read them."""

import pytest
import torch

from limner import kernels
from limner.checkpoints.checkpoint import open_checkpoint
from limner.checkpoints.gguf_packed import packed_format, to_blocks
from limner.checkpoints.gguf_writing import STORED, check_gguf, save_gguf
from limner.checkpoints.quantized import Grid, GroupedWeight
from limner.nn.packed import packed_weights
from limner.quantization.methods import Method, quantize_network
from tests.checkpoints.gguf_samples import read_there
from tests.quantization.networks import texts, tiny

FORMATS = {
    "Q8_0": Grid(8, 32, symmetric=True),
    "Q4_0": Grid(4, 32, symmetric=True),
    "Q4_1": Grid(4, 32, minimum=True),
}
FILE_TYPES = {"Q8_0": 7, "Q4_0": 2, "Q4_1": 3}
FAMILIES = {
    "llama": {},
    "phi3": {"pad_token_id": 0},
    "gpt2": {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64},
}


def numbers_of(weights, name):
    """What a rounded matrix stands for, as the kernels keep it."""
    weight = weights[name]
    assert isinstance(weight, GroupedWeight)
    packed = weight.packed()
    assert packed is not None
    return packed.dequantize()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("outputs", [32, 40])
def test_blocks_come_back_as_they_were(kind, outputs):
    matrix = torch.randn(outputs, 96, generator=torch.Generator().manual_seed(0))
    bits = 8 if kind == "Q8_0" else 4
    packed = kernels.quantize(matrix, bits, minimum=kind == "Q4_1")
    assert packed_format(packed) == kind
    again = kernels.from_gguf(to_blocks(packed), kind)
    assert torch.equal(again.codes, packed.codes)
    assert torch.equal(again.scales, packed.scales)


@pytest.mark.parametrize(
    ("method", "kind"), [("rtn", "Q8_0"), ("gptq", "Q4_1"), ("gptq", "Q4_0"), ("awq", "Q4_1")]
)
def test_the_numbers_that_a_method_chose_stand_in_the_file(tmp_path, kind, method):
    network, rows = tiny(), texts()
    weights = quantize_network(network, Method(method, FORMATS[kind]), rows)
    save_gguf(network, tmp_path / "model.gguf", None, STORED)
    found = read_there(tmp_path / "model.gguf")
    names = {"ffn_down": "feedforward.down", "ffn_up": "feedforward.up", "attn_v": "mixer.value"}
    for theirs, ours in names.items():
        format, numbers = found[f"blk.1.{theirs}.weight"]
        assert format == kind
        torch.testing.assert_close(numbers, numbers_of(weights, f"blocks.1.{ours}"))
    assert {found[name][0] for name in ("token_embd.weight", "output.weight")} == {"Q8_0"}
    gain = network.get_submodule("blocks.1.feed.before").weight.detach()
    assert found["blk.1.ffn_norm.weight"][0] == "F32"
    assert torch.equal(found["blk.1.ffn_norm.weight"][1], gain)  # AWQ's scales are in it
    opened = open_checkpoint(tmp_path / "model.gguf")
    assert opened.fields["general.file_type"] == FILE_TYPES[kind]


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "Q8_0"), ("llama", "Q4_1"), ("phi3", "Q4_0"), ("gpt2", "Q4_1")]
)
@torch.inference_mode()
def test_limner_opens_the_file_with_the_very_network(tmp_path, family, kind):
    network = tiny(family, **FAMILIES[family])
    weights = quantize_network(network, Method("rtn", FORMATS[kind]))
    save_gguf(network, tmp_path / "model.gguf", None, STORED)
    again = open_checkpoint(tmp_path / "model.gguf").network(weights="stored")
    found = dict(packed_weights(again))
    for name in weights:
        rounded = network.get_submodule(name).weight
        read = found[f"{name}.weight"]
        assert isinstance(read, kernels.PackedWeight)
        assert torch.equal(read.codes, rounded.codes)
        assert torch.equal(read.scales, rounded.scales)
    for name in found.keys() - {f"{name}.weight" for name in weights}:  # what has 8 bits now
        place = name.removesuffix(".weight")
        network.set_submodule(place, again.get_submodule(place))
    tokens = texts()[0]
    assert torch.equal(again.logits(tokens), network.logits(tokens))


def test_a_file_read_and_written_again_is_the_same(tmp_path):
    network = tiny()
    quantize_network(network, Method("rtn", FORMATS["Q4_1"]))
    save_gguf(network, tmp_path / "model.gguf", None, STORED)
    again = open_checkpoint(tmp_path / "model.gguf").network(weights="stored")
    (tmp_path / "again").mkdir()
    save_gguf(again, tmp_path / "again" / "model.gguf", None, STORED)
    assert (tmp_path / "again" / "model.gguf").read_bytes() == (
        tmp_path / "model.gguf"
    ).read_bytes()


def test_what_cannot_be_cut_into_blocks_is_half_precision(tmp_path):
    network = tiny(intermediate_size=80)
    quantize_network(network, Method("rtn", FORMATS["Q4_0"]))
    save_gguf(network, tmp_path / "model.gguf", None, STORED)
    found = read_there(tmp_path / "model.gguf")
    assert found["blk.0.ffn_down.weight"][0] == "F16"
    assert found["blk.0.ffn_up.weight"][0] == "Q4_0"


def test_a_named_format_is_written_of_packed_matrices_too(tmp_path):
    network = tiny()
    weights = quantize_network(network, Method("rtn", FORMATS["Q4_1"]))
    save_gguf(network, tmp_path / "model.gguf", None, "F16")
    format, numbers = read_there(tmp_path / "model.gguf")["blk.0.ffn_up.weight"]
    assert format == "F16"
    rounded = numbers_of(weights, "blocks.0.feedforward.up")
    assert torch.equal(numbers, rounded.half().float())


def test_networks_without_a_gguf_form_are_refused_before_the_work():
    check_gguf(tiny())
    with pytest.raises(ValueError, match="the family 'smollm3' have no GGUF form"):
        check_gguf(tiny("smollm3"))
