"""FAVOR+ is softmax attention but for an error that falls as 1 / sqrt(features)."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from limner.nn.performer import Performer, PerformerConfig, orthogonal_features
from limner.nn.rotary import Positions
from limner.nn.state import Documents

HEADS, WIDTH, TIME = 2, 8, 24


def mixer(features: int, seed: int) -> Performer:
    """A Performer whose projections are the identity: hidden is query, key and value at once."""
    performer = Performer(HEADS * WIDTH, 0, PerformerConfig(HEADS, WIDTH, features, seed=seed))
    with torch.no_grad():
        for linear in (performer.query, performer.key, performer.value, performer.output):
            linear.weight.copy_(torch.eye(HEADS * WIDTH))
    return performer


def exact(hidden: Tensor) -> Tensor:
    """Causal softmax attention of the same."""
    heads = hidden.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)
    mixed = functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
    return mixed.transpose(1, 2).flatten(-2)


@torch.no_grad()
def test_its_error_falls_as_one_over_the_root_of_features():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, TIME, HEADS * WIDTH, generator=generator) * 0.3
    truth, positions = exact(hidden), Positions(torch.arange(TIME)[None])
    sizes = [16, 32, 64, 128, 256, 512]
    errors = []
    for size in sizes:
        squares = [
            (mixer(size, seed)(hidden, positions, Documents()) - truth).square().mean()
            for seed in range(20)
        ]
        errors.append(torch.stack(squares).mean().sqrt().item())
    logs = torch.tensor([[math.log(size), 1.0] for size in sizes])
    slope = torch.linalg.lstsq(logs, torch.tensor(errors).log()[:, None]).solution[0].item()
    assert slope == pytest.approx(-0.5, abs=0.08)


def test_features_are_orthogonal_within_a_block_and_normal_in_length():
    features = orthogonal_features(20, 8, torch.Generator().manual_seed(0))
    directions = functional.normalize(features)
    for block in directions.split(8):
        torch.testing.assert_close(block @ block.t(), torch.eye(len(block)), atol=1e-5, rtol=0)
    many = orthogonal_features(4000, 8, torch.Generator().manual_seed(0))
    assert many.square().sum(1).mean().item() == pytest.approx(8, rel=0.03)
    assert many.mean(0).abs().max() < 0.06  # no direction is preferred


@torch.no_grad()
def test_large_keys_do_not_overflow():
    hidden = torch.randn(1, 80, HEADS * WIDTH, generator=torch.Generator().manual_seed(0)) * 30
    hidden[:, :40] *= 0.01  # the largest exponent comes late, and in the other direction early
    for order in (hidden, hidden.flip(1)):
        mixed = mixer(64, 0)(order, Positions(torch.arange(80)[None]), Documents())
        assert mixed.isfinite().all()
        assert (mixed.abs() <= order.abs().amax() * 1.001).all()  # averages of values


@torch.no_grad()
def test_redrawing_changes_the_features_and_little_else():
    hidden = torch.randn(1, TIME, HEADS * WIDTH, generator=torch.Generator().manual_seed(0)) * 0.3
    performer, positions = mixer(512, 0), Positions(torch.arange(TIME)[None])
    before, features = performer(hidden, positions, Documents()), performer.features.clone()
    performer.redraw(torch.Generator().manual_seed(5))
    assert not torch.equal(performer.features, features)
    after = performer(hidden, positions, Documents())
    assert 0 < (after - before).abs().max() < 0.1
