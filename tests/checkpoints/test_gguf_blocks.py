import gguf
import numpy as np
import pytest
import torch

from limner.checkpoints.gguf_blocks import UNPACK, WEIGHTS_PER_STEP, dequantize
from tests.checkpoints.gguf_samples import BLOCK_FORMATS, some_blocks


def dequantized(rows: np.ndarray, format: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    weights, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format]]
    blocks = torch.from_numpy(rows).view(-1, size)
    out = torch.full((rows.shape[0], blocks.shape[0] * weights // rows.shape[0]), torch.nan)
    out = out.to(dtype)
    dequantize(blocks, format, out)
    return out


def expected(rows: np.ndarray, format: str) -> torch.Tensor:
    return torch.from_numpy(gguf.dequantize(rows, gguf.GGMLQuantizationType[format]))


def test_every_format_the_issue_names_is_read():
    assert set(UNPACK) == set(BLOCK_FORMATS)


@pytest.mark.parametrize("format", BLOCK_FORMATS)
@pytest.mark.parametrize("rows", [1, 7, 32])
def test_weights_are_bit_equal_to_gguf_py(format, rows):
    blocks = some_blocks(format, rows, blocks_per_row=3, seed=rows)
    assert torch.equal(dequantized(blocks, format), expected(blocks, format))


@pytest.mark.parametrize("format", BLOCK_FORMATS)
def test_every_bit_of_a_block_counts(format):
    """Random codes and group scales, which quantised bell curves never reach."""
    blocks = some_blocks(format, 64, blocks_per_row=1)
    size = blocks.shape[1]
    noise = np.random.default_rng(1).integers(0, 256, (64, size), dtype=np.uint8)
    keep = np.zeros(size, dtype=bool)
    halves = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    for start in halves.get(format, (0,)):
        keep[start : start + 2] = True
    blocks = np.where(keep, blocks, noise)
    assert torch.equal(dequantized(blocks, format), expected(blocks, format))


@pytest.mark.parametrize("format", ["Q4_1", "Q6_K"])
def test_a_tensor_larger_than_a_step_has_no_seam(format):
    weights, _ = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[format]]
    blocks = some_blocks(format, 2 * WEIGHTS_PER_STEP // weights + 3, blocks_per_row=1)
    assert torch.equal(dequantized(blocks, format), expected(blocks, format))


@pytest.mark.parametrize("format", BLOCK_FORMATS)
def test_other_dtypes_are_rounded_from_the_exact_weights(format):
    blocks = some_blocks(format, 5, blocks_per_row=2)
    exact = expected(blocks, format)
    half = dequantized(blocks, format, torch.bfloat16)
    assert torch.equal(half, exact.to(torch.bfloat16))


def test_the_number_of_threads_is_left_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        dequantized(some_blocks("Q4_1", 2, 2), "Q4_1")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
