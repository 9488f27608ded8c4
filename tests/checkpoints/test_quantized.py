"""Folders of few bits, read as their formats say, by programs written here from those words."""

import json

import numpy
import pytest
import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationScheme

from limner.checkpoints.quantized import (
    Grid,
    GroupedWeight,
    QuantizedTensors,
    find_layout,
    with_plain_names,
)
from limner.checkpoints.quantized.words import from_words, to_words
from limner.checkpoints.safetensors import SafetensorsFolder, write_safetensors

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def weight(bits=4, symmetric=False, groups=2, rows=16):
    generator = torch.Generator().manual_seed(0)
    middle = 2 ** (bits - 1)
    codes = torch.randint(2**bits, (rows, 64), generator=generator, dtype=torch.uint8)
    scales = (torch.rand(rows, groups, generator=generator) + 0.1).half()
    zeros = torch.randint(1, 2**bits, (rows, groups), generator=generator, dtype=torch.uint8)
    zeros = torch.full_like(zeros, middle) if symmetric else zeros
    return GroupedWeight(codes, scales, zeros, bits)


def nibble(words, index, bits):
    """The code at `index` of 32-bit words that follow one another."""
    each = 32 // bits
    return (int(words[index // each]) >> (bits * (index % each))) & (2**bits - 1)


@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_words_hold_inputs_one_behind_another_and_zeros_less_one(bits):
    given = weight(bits)
    parts = find_layout("gptq").write(given)
    words, zeros = parts["qweight"].numpy(), parts["qzeros"].numpy()
    assert words.shape == (64 * bits // 32, 16)
    assert zeros.shape == (2, 16 * bits // 32)
    matrix = numpy.empty((16, 64), numpy.float32)
    for row in range(16):
        for column in range(64):
            group = int(parts["g_idx"][column])
            zero = nibble(zeros[group], row, bits) + 1
            scale = parts["scales"][group, row].item()
            matrix[row, column] = scale * (nibble(words[:, row], column, bits) - zero)
    numpy.testing.assert_allclose(matrix, given.dequantize().numpy(), rtol=1e-6)


def test_awq_words_hold_outputs_in_their_order():
    given = weight()
    parts = find_layout("awq").write(given)
    words, zeros = parts["qweight"].numpy(), parts["qzeros"].numpy()
    assert words.shape == (64, 2)
    for row in range(16):
        place = row // 8 * 8 + AWQ_ORDER.index(row % 8)
        assert [nibble(words[k], place, 4) for k in range(64)] == given.codes[row].tolist()
        assert [nibble(zeros[g], place, 4) for g in range(2)] == given.zeros[row].tolist()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_compressed_tensors_are_what_its_own_package_reads(bits, symmetric):
    given = weight(bits, symmetric)
    layout = find_layout("compressed-tensors")
    fields = layout.write_fields(Grid(bits, 32, symmetric), ["lm_head"])
    scheme = QuantizationScheme(**fields["config_groups"]["group_0"])
    theirs = PackedQuantizationCompressor.decompress(layout.write(given), scheme)["weight"]
    torch.testing.assert_close(theirs.float(), given.dequantize(), atol=1e-2, rtol=1e-3)
    ours = layout.read(layout.write(given), fields)
    assert torch.equal(ours.dequantize(), given.dequantize())


CASES = [
    ("gptq", Grid(4, 32)),
    ("gptq", Grid(8, 32, True)),
    ("awq", Grid(4, 32)),
    ("compressed-tensors", Grid(4, 32)),
    ("compressed-tensors", Grid(4, 32, True)),
    ("compressed-tensors", Grid(8, None, True)),
]


@pytest.mark.parametrize(("name", "grid"), CASES, ids=str)
def test_each_layout_reads_what_it_writes(tmp_path, name, grid):
    given = weight(grid.bits, grid.symmetric, groups=1 if grid.group is None else 2)
    layout = find_layout(name)
    named = {f"a.{suffix}": part for suffix, part in layout.write(given).items()}
    write_safetensors([*named.items(), ("b.weight", torch.ones(3))], tmp_path)
    fields = {"quantization_config": layout.write_fields(grid, [])}
    source = with_plain_names(SafetensorsFolder(tmp_path), tmp_path, fields)
    assert isinstance(source, QuantizedTensors)
    assert sorted(source.names()) == ["a.weight", "b.weight"]
    assert source.shape("a.weight") == (16, 64)
    assert source.format("b.weight") == "F32"
    assert torch.equal(source.read("a.weight"), given.dequantize())
    packed = source.packed("a.weight")
    assert packed is not None
    torch.testing.assert_close(packed.dequantize(), given.dequantize(), atol=2e-2, rtol=0)
    assert source.packed("b.weight") is None


def test_inputs_in_another_order_are_read_as_floats(tmp_path, caplog):
    given, order = weight(), torch.randperm(64, generator=torch.Generator().manual_seed(1))
    parts = find_layout("gptq").write(given)
    parts["g_idx"] = parts["g_idx"][order]
    write_safetensors([(f"{n}.{s}", p.clone()) for n in "ab" for s, p in parts.items()], tmp_path)
    fields = {"quantization_config": find_layout("gptq").write_fields(Grid(), [])}
    source = with_plain_names(SafetensorsFolder(tmp_path), tmp_path, fields)
    assert isinstance(source, QuantizedTensors)
    groups = parts["g_idx"].long()
    zeros, scales = given.zeros.float()[:, groups], given.scales.float()[:, groups]
    assert torch.equal(source.read("a.weight"), (given.codes.float() - zeros) * scales)
    with caplog.at_level("INFO"):
        assert source.packed("a.weight") is None
        assert source.packed("b.weight") is None
    assert len(caplog.records) == 1
    assert "floats instead" in caplog.text


def test_old_and_second_versions_of_gptq_are_read(tmp_path):
    given, layout = weight(), find_layout("gptq")
    parts = layout.write(given)
    write_safetensors([(f"a.{suffix}", part) for suffix, part in parts.items()], tmp_path)
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 32}))
    source = with_plain_names(SafetensorsFolder(tmp_path), tmp_path, {})
    assert torch.equal(source.read("a.weight"), given.dequantize())
    second = {**parts, "qzeros": to_words(given.zeros.t(), 4)}
    fields = {**layout.write_fields(Grid(), []), "checkpoint_format": "gptq_v2"}
    assert torch.equal(layout.read(second, fields).dequantize(), given.dequantize())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quant_method": "bitsandbytes"}, "quantised by 'bitsandbytes' cannot be read"),
        ({"quant_method": "gptq", "bits": 3}, "quantised to 3 bits cannot be read"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "'gemv' layout cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, settings, message):
    parts = find_layout("gptq").write(weight())
    write_safetensors([(f"a.{suffix}", part) for suffix, part in parts.items()], tmp_path)
    with pytest.raises(ValueError, match=message):
        with_plain_names(
            SafetensorsFolder(tmp_path), tmp_path, {"quantization_config": settings}
        ).read("a.weight")


@pytest.mark.parametrize("bits", [4, 8])
def test_words_come_back(bits):
    codes = torch.randint(2**bits, (3, 1, 40), dtype=torch.uint8)
    assert torch.equal(from_words(to_words(codes, bits), bits), codes)
    with pytest.raises(ValueError, match="do not fill words"):
        to_words(codes[..., :3], bits)
