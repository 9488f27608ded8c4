import pytest
import torch
from torch.nn import functional

from limner import kernels
from limner.checkpoints.quantized import Grid
from limner.quantization.outliers import OutlierLinear, split_outliers

GRID = Grid(8, 32, True)


def weight_and_peak():
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(0)).half().float()
    peak = torch.rand(64, generator=torch.Generator().manual_seed(1)) * 5
    peak[[3, 40]] = torch.tensor([6.0, 90.0])
    return weight, peak


def test_columns_of_large_inputs_keep_their_numbers():
    weight, peak = weight_and_peak()
    split = split_outliers(weight, peak, GRID)
    assert split.columns.tolist() == [3, 40]
    assert torch.equal(split.dequantize()[:, [3, 40]], weight[:, [3, 40]])
    assert (split.dequantize() - weight).abs().max() < 0.02
    assert split.rest.dequantize()[:, [3, 40]].abs().max() == 0


def test_outlier_inputs_meet_their_weights_exactly():
    weight, peak = weight_and_peak()
    bias = torch.randn(6)
    layer = OutlierLinear(split_outliers(weight, peak, GRID), bias)
    inputs = torch.zeros(2, 64)
    inputs[:, [3, 40]] = torch.tensor([[77.7, -0.013], [1e4, 3.3]])
    torch.testing.assert_close(layer(inputs), functional.linear(inputs, weight, bias))


def test_an_outlier_costs_the_others_no_precision():
    weight, peak = weight_and_peak()
    layer = OutlierLinear(split_outliers(weight, peak, GRID))
    inputs = torch.randn(50, 64, generator=torch.Generator().manual_seed(2))
    inputs[:, 40] = 1000
    expected = inputs @ weight.T
    plain = kernels.linear_quantized(inputs, kernels.quantize(weight, 8))
    assert (layer(inputs) - expected).norm() < 0.05 * (plain - expected).norm()


def test_only_eight_bits_are_split():
    with pytest.raises(ValueError, match="say bits=8"):
        split_outliers(torch.ones(2, 32), torch.ones(32), Grid(4))
