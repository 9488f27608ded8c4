import numpy
import pytest
import torch

from limner import kernels
from limner.checkpoints.quantized import Grid
from limner.quantization.rounding import round_to_nearest

GRIDS = [
    Grid(bits, group, symmetric)
    for bits in (4, 8)
    for group in (32, 64, None)
    for symmetric in (True, False)
]
MINIMUM = Grid(4, 32, minimum=True)


def matrix(rows=5, columns=128):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", [*GRIDS, MINIMUM], ids=str)
def test_every_number_goes_to_the_nearest_of_its_group(grid):
    weight = matrix()
    rounded = round_to_nearest(weight, grid)
    scales, zeros = rounded.scales.double().numpy(), rounded.zeros.numpy().astype(float)
    size = grid.group or 128
    for row in range(5):
        for column in range(128):
            scale, zero = scales[row, column // size], zeros[row, column // size]
            choices = scale * (numpy.arange(2**grid.bits) - zero)
            nearest = numpy.abs(choices - weight[row, column].item()).min()
            error = abs(choices[rounded.codes[row, column]] - weight[row, column].item())
            assert error <= nearest + 1e-6


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_no_error_is_more_than_half_a_step_but_at_the_rim(grid):
    weight = matrix()
    rounded = round_to_nearest(weight, grid)
    steps = rounded.scales.float().abs().repeat_interleave(rounded.group, 1)
    # A zero between two codes moves the grid by half a step at most; a largest number of the other
    # sign than the peak is a whole step outside a symmetric grid.
    assert ((rounded.dequantize() - weight).abs() <= steps * 1.01).all()
    inner = weight.abs() < 0.8 * steps * (2 ** (grid.bits - 1) - 1)
    if grid.symmetric:
        error = (rounded.dequantize() - weight).abs()[inner]
        assert (error <= steps[inner] * 0.501).all()


def test_eight_bits_have_the_numbers_of_the_kernels_own_rounding_to_a_step():
    weight = matrix()
    ours = round_to_nearest(weight, Grid(8, 32, True)).dequantize()
    theirs = kernels.quantize(weight, 8).dequantize()
    assert (ours - weight).norm() <= (theirs - weight).norm()


@pytest.mark.parametrize("grid", [g for g in GRIDS if g.bits == 4 or g.symmetric], ids=str)
def test_kernels_compute_with_the_very_numbers(grid):
    rounded = round_to_nearest(matrix(), grid)
    packed = rounded.packed()
    assert packed is not None
    # Kernels keep -scale x zero in half precision.
    close = 0 if grid.symmetric else 2**-10 * rounded.scales.abs().max().item() * 15
    torch.testing.assert_close(packed.dequantize(), rounded.dequantize(), atol=close, rtol=0)


def test_numbers_of_q4_1_are_their_own_nearest():
    weight = matrix()
    weight[0, :32] += 5  # a group without zero
    stored = kernels.quantize(weight, 4, minimum=True)
    again = round_to_nearest(stored.dequantize(), MINIMUM).packed()
    assert again is not None
    assert torch.equal(again.codes, stored.codes)
    assert torch.equal(again.scales, stored.scales)


def test_a_minimum_of_its_own_is_finer_than_a_zero_among_the_codes():
    weight = matrix()
    own, coded = (round_to_nearest(weight, grid) for grid in (MINIMUM, Grid(4, 32)))
    assert (own.dequantize() - weight).norm() < (coded.dequantize() - weight).norm()
    assert (own.stored_bits, coded.stored_bits) == (5 * 128 * 5, 4.625 * 128 * 5)


def test_kernels_have_no_form_of_eight_bits_with_zeros():
    assert round_to_nearest(matrix(), Grid(8, 32, False)).packed() is None


@pytest.mark.parametrize("values", [torch.zeros(2, 64), torch.full((2, 64), -0.3)])
@pytest.mark.parametrize("grid", [*GRIDS[:4], MINIMUM], ids=str)
def test_rows_of_one_value_are_kept(values, grid):
    rounded = round_to_nearest(values, grid).dequantize()
    torch.testing.assert_close(rounded, values, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_rounded_is_said():
    with pytest.raises(ValueError, match="groups of 96 do not divide 128 inputs"):
        round_to_nearest(matrix(), Grid(4, 96))
    with pytest.raises(ValueError, match="infinities or NaN"):
        round_to_nearest(torch.full((2, 32), torch.inf), Grid())
    with pytest.raises(ValueError, match="bits must be 4 or 8, not 3"):
        Grid(3)
    with pytest.raises(ValueError, match="group must be a multiple of 32, not 48"):
        Grid(4, 48)
