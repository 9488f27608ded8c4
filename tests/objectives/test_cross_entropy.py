import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from limner.models.heads import LanguageHeadConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.norms import NormConfig
from limner.objectives.cross_entropy import cross_entropy
from limner.objectives.loss import Loss, Sum, add

HEADS = {
    "plain": LanguageHeadConfig(tied=False),
    "softcap": LanguageHeadConfig(tied=False, softcap=3.0, scale=1.5, bias=True),
    "masked": LanguageHeadConfig(tied=False, activation="gelu", norm=NormConfig("layer")),
}


def example(head, dtype=torch.float32):
    torch.manual_seed(0)
    module = HEADS[head].build(12, EmbeddingConfig(50)).to(dtype)
    hidden = torch.randn(3, 7, 12, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, 50, (3, 7))
    weights = torch.rand(3, 7, dtype=dtype) * (torch.rand(3, 7) < 0.7)
    return module, hidden, targets, weights


@pytest.mark.parametrize("chunk", [1, 4, 100, None])
@pytest.mark.parametrize("head", HEADS)
def test_chunks_equal_plain_cross_entropy_and_its_gradients(head, chunk):
    module, hidden, targets, weights = example(head)
    each = functional.cross_entropy(
        module(hidden).flatten(0, 1), targets.flatten(), reduction="none"
    )
    plain = (each * weights.flatten()).sum()
    inputs = [hidden, *module.parameters()]
    expected = torch.autograd.grad(plain * 0.5, inputs)
    loss = cross_entropy(module, hidden, targets, weights, chunk)
    got = torch.autograd.grad(loss.total * 0.5, inputs)
    torch.testing.assert_close(loss.total, plain, atol=1e-6, rtol=1e-6)
    assert float(loss.weight) == pytest.approx(float(weights.sum()))
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        unlearnt = cross_entropy(module, hidden, targets, weights, chunk)
    torch.testing.assert_close(unlearnt.total, plain, atol=1e-6, rtol=1e-6)


def test_a_frozen_head_gets_no_gradient():
    module, hidden, targets, weights = example("plain")
    module.requires_grad_(False)
    cross_entropy(module, hidden, targets, weights).total.backward()
    assert hidden.grad is not None
    assert all(parameter.grad is None for parameter in module.parameters())


def test_targets_of_weight_0_may_be_anything():
    module, hidden, targets, weights = example("plain")
    expected = cross_entropy(module, hidden, targets, weights).total
    wrong = torch.where(weights == 0, -100, targets)
    torch.testing.assert_close(cross_entropy(module, hidden, wrong, weights).total, expected)


def test_no_places_are_no_loss():
    module, hidden, targets, weights = example("plain")
    loss = cross_entropy(module, hidden, targets, torch.zeros_like(weights))
    loss.total.backward()
    assert (loss.detach().total.item(), loss.weight.item()) == (0, 0)
    assert math.isnan(loss.detach().mean)


class Counting(nn.Linear):
    largest = 0

    def forward(self, hidden):
        logits = super().forward(hidden)
        self.largest = max(self.largest, logits.numel())
        return logits


def test_the_full_logits_never_exist():
    head = Counting(8, 1000)
    hidden = torch.randn(2, 50, 8, requires_grad=True)
    cross_entropy(head, hidden, torch.zeros(2, 50, dtype=torch.long), torch.ones(2, 50), 10)
    assert head.largest == 10 * 1000


def test_losses_add_up():
    def loss(total, weight, **metrics):
        sums = {name: Sum(*map(torch.tensor, both)) for name, both in metrics.items()}
        return Loss(torch.tensor(total), torch.tensor(weight), sums)

    whole = add([loss(6.0, 2.0, a=(1.0, 1.0)), loss(4.0, 8.0, a=(3.0, 3.0), b=(1.0, 2.0))])
    assert whole.means() == {"loss": 1.0, "a": 1.0, "b": 0.5}
