from dataclasses import astuple

import numpy
import pytest

from limner.scaling.fit import fit_powers, fit_runs
from limner.scaling.fitting import bootstrap, fit_additive, fit_joint, fit_power, require_falling
from limner.scaling.laws import PUBLISHED, Additive, Joint, Power, interval, intervals
from limner.scaling.runs import Run
from tests.scaling.planted import planted

SMALL = Additive(E=1.2, A=30.0, B=90.0, alpha=0.31, beta=0.42)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_laws_come_back_from_points_drawn_from_them(name):
    law = PUBLISHED[name]
    assert astuple(fit_additive(planted(law))) == pytest.approx(astuple(law), rel=1e-4)


def test_a_law_of_tiny_models_comes_back():
    runs = planted(SMALL, sizes=(1e4, 3e4, 9e4, 3e5), tokens=(1e5, 3e5, 1e6))
    assert astuple(fit_additive(runs)) == pytest.approx(astuple(SMALL), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_under_noise_losses_exponents_and_optimum_stay_within_five_percent(seed):
    law = PUBLISHED["besiroglu"]
    found = fit_additive(planted(law, noise=0.002, seed=seed))
    assert (found.alpha, found.beta) == pytest.approx((law.alpha, law.beta), rel=0.05)
    assert pytest.approx(law.E, rel=0.05) == found.E
    assert found.exponents == pytest.approx(law.exponents, rel=0.05)
    # Ten times larger and longer than any run that was fitted.
    assert float(found.loss(1.6e11, 1e13)) == pytest.approx(float(law.loss(1.6e11, 1e13)), rel=0.05)


def test_an_outlier_hardly_moves_the_law():
    law, runs = PUBLISHED["besiroglu"], planted(PUBLISHED["besiroglu"])
    runs[20] = Run(runs[20].parameters, runs[20].tokens, 1.5 * runs[20].loss)
    assert astuple(fit_additive(runs)) == pytest.approx(astuple(law), rel=0.05)


def test_most_intervals_hold_the_truth():
    law = PUBLISHED["besiroglu"]
    held = []
    for seed in range(10):
        runs = planted(law, noise=0.01, seed=seed)
        drawn = bootstrap(runs, fit_additive(runs), 50, seed)
        sure = intervals(drawn)
        inside = [sure[name][0] <= getattr(law, name) <= sure[name][1] for name in sure]
        low, high = interval(numpy.array([x.loss(7e10, 1.4e12) for x in drawn]))
        held.append([*inside, low <= law.loss(7e10, 1.4e12) <= high])
    assert numpy.mean(held) >= 0.85  # 95% are meant, and few draws of few runs fall short a little


def test_draws_depend_on_the_seed_alone():
    runs = planted(SMALL, 0.01, sizes=(1e4, 1e5, 1e6), tokens=(1e5, 1e6, 1e7))
    law = fit_additive(runs)
    first, again, other = (bootstrap(runs, law, 5, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_kaplans_laws_come_back():
    # The constants of Kaplan et al. 2020: table 2 for both together, figure 1 for L(N).
    law = Joint(n_c=6.4e13, d_c=1.8e13, alpha_n=0.076, alpha_d=0.103)
    runs = planted(law, sizes=numpy.geomspace(1e6, 1e9, 6), tokens=numpy.geomspace(2e7, 2e10, 6))
    found = fit_joint(runs)
    assert found is not None
    assert astuple(found) == pytest.approx(astuple(law), rel=0.01)
    sizes, power = numpy.geomspace(1e5, 1e9, 5), Power(8.8e13, 0.076)
    assert astuple(fit_power(sizes, power.loss(sizes))) == pytest.approx((8.8e13, 0.076), rel=1e-3)


def test_the_sweep_of_the_docs_foresees_its_larger_run():
    # Llamas of 12,336 to 139,584 parameters, and one of 270,816 with more text.
    sizes, tokens = (12_336, 29_792, 86_208, 139_584), (62_976, 125_440, 250_336)
    losses = [4.9266, 4.5922, 4.3797, 4.6340, 4.3184, 4.0702, 4.3478, 4.0767, 3.8602, 4.2848]
    losses += [4.0356, 3.8139]
    pairs = [(n, d) for n in sizes for d in tokens]
    runs = [Run(n, d, loss) for (n, d), loss in zip(pairs, losses, strict=True)]
    assert float(fit_additive(runs).loss(270_816, 500_192)) == pytest.approx(3.5041, rel=0.03)
    assert fit_joint(runs) is None


def test_power_laws_are_of_the_best_runs_only():
    runs = [Run(n, 1e9, float(Power(1e6, 0.1).loss(n))) for n in (1e3, 1e4, 1e5)]
    wasted = [Run(5e4, 1e9, 9.0), Run(1e4, 1e8, 8.0)]
    assert astuple(fit_powers(runs + wasted)["N"]) == pytest.approx((1e6, 0.1), rel=1e-6)


def test_a_fit_says_how_far_off_it_is():
    fit = fit_runs(planted(SMALL, sizes=(1e4, 1e5, 1e6), tokens=(1e5, 1e6, 1e7)), resamples=0)
    off = Run(1e5, 1e6, float(SMALL.loss(1e5, 1e6)) / 1.1)
    assert fit.errors([off]) == pytest.approx([0.1], rel=1e-3)
    assert fit.facts()["errors"]["largest"] < 1e-6


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (planted(SMALL, sizes=(1e4,), tokens=(1e5, 1e6, 1e7)), "3 runs do not determine a law"),
        (planted(SMALL, sizes=(1e4, 1e5), tokens=(1e5, 1e6, 1e7)), r"too few sizes \(10,000"),
        (planted(SMALL, sizes=(1e4, 1e5, 1e6), tokens=(1e5, 1e6)), "too few numbers of tokens"),
        (planted(SMALL, sizes=(9e4, 1e5, 1.1e5), tokens=(1e5, 1e6)), "largest twice the smallest"),
        (
            [Run(n, 20 * n, float(SMALL.loss(n, 20 * n))) for n in numpy.geomspace(1e4, 1e6, 7)],
            r"sizes and tokens rise together \(correlation 1.0000\)",
        ),
    ],
)
def test_runs_that_determine_no_law_are_refused(runs, message):
    with pytest.raises(ValueError, match=message):
        fit_runs(runs, resamples=0)


def test_losses_that_rise_with_the_size_are_refused():
    rising = Additive(E=1.0, A=1.0, B=90.0, alpha=-0.1, beta=0.4)
    with pytest.raises(ValueError, match="do not fall with parameters"):
        require_falling(fit_additive(planted(rising, sizes=(1e4, 1e5, 1e6))))
