import pytest
import torch

from limner.training.muon import orthogonalise
from limner.training.schedules import ScheduleSettings


def shares(steps=100, **settings):
    schedule = ScheduleSettings.model_validate(settings)
    return [schedule.share(step, steps) for step in range(steps + 1)]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "stable"])
def test_the_rate_rises_to_its_highest_and_never_again(kind):
    found = shares(kind=kind, warmup=10)
    assert found[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[100] == pytest.approx(1.0 if kind == "constant" else 0.1)


def test_warmup_is_steps_or_a_share_of_them():
    assert shares(warmup=0.1) == shares(warmup=10)
    assert shares(warmup=0)[0] == 1


def test_schedules_halfway():
    assert shares(kind="cosine", warmup=0, final=0)[50] == pytest.approx(0.5)
    assert shares(kind="cosine", warmup=0, final=0)[25] == pytest.approx(0.853553)
    assert shares(kind="linear", warmup=0, final=0.2)[25] == pytest.approx(0.8)
    stable = shares(kind="stable", warmup=0, final=0, decay=0.2)
    assert stable[80] == 1
    assert stable[90] == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (3, 16, 16)])
def test_orthogonalised_matrices_have_singular_values_near_1(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.3
    assert (values > 0.3).float().mean() > 0.9
