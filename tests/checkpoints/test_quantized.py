"""Folders of few bits, read as their formats say, by programs written here from those words."""

import json

import numpy
import pytest
import torch
from compressed_tensors.compressors import (
    FloatQuantizationCompressor,
    PackedQuantizationCompressor,
)
from compressed_tensors.quantization import QuantizationScheme

from limner.checkpoints.quantized import (
    FLOAT8_GRID,
    Grid,
    GroupedWeight,
    QuantizedTensors,
    find_layout,
    with_plain_names,
)
from limner.checkpoints.quantized.words import from_words, to_words
from limner.checkpoints.safetensors import SafetensorsFolder, write_safetensors
from limner.nn.scaled import FLOAT8, round_rows

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


def float8_parts():
    matrix = torch.randn(16, 64, generator=torch.Generator().manual_seed(3))
    return find_layout("compressed-tensors").write(round_rows(matrix))


def opened(folder, parts):
    """A folder of floats of 8 bits that holds these parts of the matrix `a`."""
    write_safetensors(((f"a.{suffix}", part.clone()) for suffix, part in parts.items()), folder)
    fields = find_layout("compressed-tensors").write_fields(FLOAT8_GRID, [])
    return with_plain_names(
        SafetensorsFolder(folder), folder, json.loads(json.dumps({"quantization_config": fields}))
    )


def test_floats_of_8_bits_are_what_compressed_tensors_reads(tmp_path):
    parts = float8_parts()
    assert (parts["weight"].dtype, parts["weight_scale"].shape) == (FLOAT8, (16, 1))
    source = opened(tmp_path, parts)
    assert isinstance(source, QuantizedTensors)
    scheme = QuantizationScheme(**source.settings["config_groups"]["group_0"])
    theirs = FloatQuantizationCompressor.decompress(parts, scheme)["weight"]
    assert torch.equal(source.read("a.weight"), theirs)
    assert source.packed("a.weight") is None
    stored = source.scaled("a.weight")
    assert stored is not None
    assert torch.equal(stored.codes.view(torch.uint8), parts["weight"].view(torch.uint8))


@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.tensor([0.5])], ids=["none", "one"])
def test_one_scale_may_be_for_all_rows(tmp_path, scale):
    codes = float8_parts()["weight"]
    parts = {"weight": codes, "weight_scale": scale, "input_scale": torch.ones(1)}
    source = opened(tmp_path, parts)
    assert list(source.names()) == ["a.weight"]
    assert torch.equal(source.read("a.weight"), codes.float() * 0.5)


def test_whole_rows_of_int8_are_found(tmp_path):
    given = weight(8, True, groups=1)
    layout = find_layout("compressed-tensors")
    named = {f"a.{suffix}": part for suffix, part in layout.write(given).items()}
    write_safetensors(named.items(), tmp_path)
    fields = {"quantization_config": layout.write_fields(Grid(8, None, True), [])}
    source = with_plain_names(SafetensorsFolder(tmp_path), tmp_path, fields)
    assert isinstance(source, QuantizedTensors)
    stored = source.scaled("a.weight")
    assert stored is not None
    assert stored.codes.dtype == torch.int8
    assert torch.equal(stored.dequantize(), given.dequantize())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_scale": None}, r"'a.weight' are F8_E4M3, but there is no 'a.weight_scale'"),
        ({"weight_scale": torch.ones(7, 1)}, r"'a.weight': scales of shape \(7, 1\) .* 16 rows"),
        ({"weight_scale": torch.ones(16, 4)}, "'a.weight': floats .* 4 scales a row"),
        ({"weight": None}, "'a.weight': there are scales, but no numbers"),
        ({"weight": torch.ones(16, 64).to(torch.float8_e5m2)}, "'a.weight': .*float8_e5m2 cannot"),
    ],
)
def test_floats_of_8_bits_without_what_belongs_to_them_are_named(tmp_path, change, message):
    parts = {name: part for name, part in (float8_parts() | change).items() if part is not None}
    with pytest.raises(ValueError, match=message):
        opened(tmp_path, parts).read("a.weight")


def test_blocks_of_floats_of_8_bits_have_a_scale_each(tmp_path):
    codes = float8_parts()["weight"]  # (16, 64)
    scales = torch.rand(3, 2, generator=torch.Generator().manual_seed(4)) + 0.1
    write_safetensors([("a.weight", codes), ("a.weight_scale_inv", scales)], tmp_path)
    settings = {"quant_method": "fp8", "weight_block_size": [6, 40]}
    source = with_plain_names(
        SafetensorsFolder(tmp_path), tmp_path, {"quantization_config": settings}
    )
    assert isinstance(source, QuantizedTensors)
    assert (list(source.names()), source.shape("a.weight")) == (["a.weight"], (16, 64))
    expected = [
        [codes[r, c].item() * scales[r // 6, c // 40] for c in range(64)] for r in range(16)
    ]
    torch.testing.assert_close(source.read("a.weight"), torch.tensor(expected))
    assert source.scaled("a.weight") is None
    settings["weight_block_size"] = [8, 40]
    with pytest.raises(ValueError, match=r"\(3, 2\) are not those of blocks of 8 x 40 .* 16 x 64"):
        source.read("a.weight")


def test_blocks_in_compressed_tensors_are_what_it_reads(tmp_path):
    codes = float8_parts()["weight"]
    scales = torch.rand(2, 4, generator=torch.Generator().manual_seed(4)) + 0.1
    fields = find_layout("compressed-tensors").write_fields(FLOAT8_GRID, [])
    weights = fields["config_groups"]["group_0"]["weights"]
    weights |= {"strategy": "block", "block_structure": [8, 16]}
    parts = {"weight": codes, "weight_scale": scales}
    scheme = QuantizationScheme(**fields["config_groups"]["group_0"])
    theirs = FloatQuantizationCompressor.decompress(parts, scheme)["weight"]
    read = find_layout("compressed-tensors").read(parts, fields)
    torch.testing.assert_close(read.dequantize(), theirs)


def test_floats_of_8_bits_in_blocks_are_not_written():
    with pytest.raises(ValueError, match="writes no folders of floats of 8 bits in blocks"):
        find_layout("fp8").write_fields(FLOAT8_GRID, [])
