import pytest

from limner.scaling.isoflop import budgets, fit_isoflop
from limner.scaling.laws import PUBLISHED
from limner.scaling.runs import Run
from tests.scaling.planted import budgeted, planted

LAW = PUBLISHED["besiroglu"]


def test_parabolas_find_the_best_sizes_and_how_they_grow():
    found = fit_isoflop(budgeted(LAW))
    assert found.exponent == pytest.approx(LAW.exponents[0], rel=0.01)
    assert not found.refused
    for parabola in found.parabolas:
        best, seen = LAW.optimum(parabola.computation)
        assert (parabola.parameters, parabola.tokens) == pytest.approx((best, seen), rel=0.05)
        assert parabola.loss == pytest.approx(float(LAW.loss(best, seen)), rel=0.01)


def test_a_budget_whose_best_size_was_not_trained_says_so():
    best, _ = LAW.optimum(1e20)
    sizes = [best * share for share in (0.1, 0.2, 0.4)]
    found = fit_isoflop([Run(n, 1e20 / 6 / n, float(LAW.loss(n, 1e20 / 6 / n))) for n in sizes])
    assert found.parabolas == ()
    assert found.refused == ("1.00e+20: the best size is larger than all that were trained",)
    flipped = [Run(n, 1e20 / 6 / n, 5 - (n == sizes[0]) - (n == sizes[2])) for n in sizes]
    assert fit_isoflop(flipped).refused == ("1.00e+20: the losses have no lowest point",)


def test_runs_of_unequal_compute_have_no_budgets():
    assert budgets(planted(LAW, sizes=(1e8, 1e9), tokens=(1e10, 1e11))) == []
    assert fit_isoflop(planted(LAW, sizes=(1e8, 1e9))).exponent is None
