import pytest
import torch

from limner.checkpoints.quantized import Grid
from limner.quantization.clipping import search_clip
from limner.quantization.gptq import gptq
from limner.quantization.rounding import Levels, codes_of, fit, in_groups, round_to_nearest
from tests.quantization.networks import correlated

GRIDS = [Grid(4, 32), Grid(4, 64, True), Grid(4, None), Grid(8, 32, True), Grid(4, 96)]


def plain(weight, hessian, grid, damping=0.01):
    """Optimal brain quantisation in a fixed order, with the inverse worked out anew each time."""
    size = weight.shape[1]
    hessian = hessian.double() + torch.eye(size) * damping * hessian.diagonal().double().mean()
    weight, result = weight.double().clone(), torch.empty_like(weight)
    group = grid.group_of(size)
    for place in range(size):
        if place % group == 0:
            level = fit(weight[:, place : place + group].float(), grid)
        codes = codes_of(weight[:, place : place + 1].float(), level, grid)[:, 0]
        value = ((codes - level.zero) * level.scale).double()
        inverse = torch.linalg.inv(hessian[place:, place:])
        error = (weight[:, place] - value) / inverse[0, 0]
        weight[:, place:] -= error[:, None] * inverse[0]
        result[:, place] = value.float()
    return result


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_it_is_optimal_brain_quantisation_in_order(grid):
    inputs = correlated(600, 192)
    weight = torch.randn(7, 192, generator=torch.Generator().manual_seed(0))
    hessian = inputs.T @ inputs
    ours = gptq(weight, hessian, grid).dequantize()
    expected = plain(weight, hessian, grid)
    # A number near the middle of two codes may fall either way, and moves those behind it.
    assert ((ours - expected).abs() < 1e-5).float().mean() > 0.97


@pytest.mark.parametrize("by_weight", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_inputs_that_know_nothing_of_one_another_are_rounded_to_nearest(grid, by_weight):
    weight = torch.randn(7, 192, generator=torch.Generator().manual_seed(0))
    importance = torch.arange(1.0, 193)
    ours = gptq(weight, importance.diag(), grid, by_weight=by_weight)
    clip = search_clip(weight, importance, grid) if by_weight else 1.0
    nearest = round_to_nearest(weight, grid, clip)
    assert torch.equal(ours.codes, nearest.codes)
    assert torch.equal(ours.scales, nearest.scales)


@pytest.mark.parametrize("by_weight", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_outputs_move_less_than_by_rounding_to_nearest(grid, by_weight):
    inputs = correlated(600, 192)
    weight = torch.randn(7, 192, generator=torch.Generator().manual_seed(0))

    def moved(rounded):
        return ((rounded.dequantize() - weight) @ inputs.T).square().sum()

    ours = gptq(weight, inputs.T @ inputs, grid, by_weight=by_weight)
    assert moved(ours) < 0.7 * moved(round_to_nearest(weight, grid))


def test_an_order_leaves_groups_and_their_grids_in_place():
    inputs = correlated(600, 64)
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    ours = gptq(weight, inputs.T @ inputs, Grid(4, 32), by_weight=True)
    clip = search_clip(weight, inputs.square().sum(0), Grid(4, 32))
    scale, zero = fit(in_groups(weight, Grid(4, 32)), Grid(4, 32), clip)
    assert torch.equal(ours.scales.float(), scale)
    assert torch.equal(ours.zeros.float(), zero)
    assert ours.group_of is None


def test_an_input_that_is_always_zero_does_no_harm():
    inputs = correlated(600, 64)
    inputs[:, 5] = 0
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    ours = gptq(weight, inputs.T @ inputs, Grid(8, None, True))
    nearest = round_to_nearest(weight, Grid(8, None, True))
    assert torch.equal(ours.codes[:, 5], nearest.codes[:, 5])
    assert ours.dequantize().isfinite().all()


def test_inputs_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="inputs that are not finite"):
        gptq(torch.ones(2, 32), torch.full((32, 32), torch.nan), Grid())


def test_codes_are_those_of_the_levels_kept():
    levels = Levels(torch.tensor([0.5]), torch.tensor([8.0]))
    assert codes_of(torch.tensor([[-9.0, -4.0, 0.2, 0.3, 99.0]]), levels, Grid()).tolist() == [
        [0, 0, 8, 9, 15]
    ]
