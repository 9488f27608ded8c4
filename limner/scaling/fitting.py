"""Fitting laws to runs: Huber's loss on the logarithms, from many starts.

R runs, K constants; n, d and loss are the logarithms of parameters, tokens and losses, (R,).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy

from limner.scaling.laws import Additive, Joint, Power
from limner.scaling.runs import Numbers, Run, columns

#: Residuals beyond this are outliers (Hoffmann et al. 2022).
DELTA = 1e-3
#: Exponents to start from: each pair, with the other constants that suit it best.
EXPONENTS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.3)
#: Of all starts so many, the best, are followed to the end.
FOLLOWED = 32
#: A law's sizes, or numbers of tokens, must lie so far apart: largest by smallest.
SPREAD = 2.0
#: With log N and log D more alike than this, the two terms cannot be told apart.
ALIKE = 0.999
#: An exponent above this is none.
STEEPEST = 2.0
#: From constants to residuals (R,) and their derivatives (R, K).
Residuals = Callable[[Numbers], tuple[Numbers, Numbers]]


def fit_additive(runs: list[Run], near: Additive | None = None) -> Additive:
    """The additive law of the runs, as in approach 3 of Hoffmann et al. 2022.

    The sum of Huber losses of log L is minimised with L-BFGS over log E, log A, log B, alpha and
    beta, the law being a log-sum-exp of them; from a grid of exponents, or from a law `near` it.

    Raises ValueError if the runs do not determine it.
    """
    require_spread(runs)
    n, d, loss = (numpy.log(column) for column in columns(runs))
    middle_n, middle_d = n.mean(), d.mean()
    n, d = n - middle_n, d - middle_d  # so that A and alpha are told apart more easily

    def residuals(constants: Numbers) -> tuple[Numbers, Numbers]:
        return additive_residuals(constants, n, d, loss)

    if near is None:
        starts = best_starts(residuals, additive_starts(n, d, loss), FOLLOWED)
    else:
        a = numpy.log(near.A) - near.alpha * middle_n
        b = numpy.log(near.B) - near.beta * middle_d
        starts = [numpy.array([numpy.log(max(near.E, 1e-6)), a, b, near.alpha, near.beta])]
    e, a, b, alpha, beta = minimise(residuals, starts)
    return Additive(
        E=float(numpy.exp(e)),
        A=float(numpy.exp(a + alpha * middle_n)),
        B=float(numpy.exp(b + beta * middle_d)),
        alpha=float(alpha),
        beta=float(beta),
    )


def additive_residuals(
    constants: Numbers,
    n: Numbers,
    d: Numbers,
    loss: Numbers,
) -> tuple[Numbers, Numbers]:
    """The logarithm of E + A / N^alpha + B / D^beta less log L, and its derivatives."""
    e, a, b, alpha, beta = constants
    terms = numpy.stack([numpy.full_like(n, e), a - alpha * n, b - beta * d])  # (3, R)
    largest = terms.max(axis=0)
    shares = numpy.exp(terms - largest)
    total = shares.sum(axis=0)
    shares /= total
    of_e, of_n, of_d = shares
    slopes = numpy.stack([of_e, of_n, of_d, -n * of_n, -d * of_d], axis=1)  # (R, 5)
    return largest + numpy.log(total) - loss, slopes


def additive_starts(n: Numbers, d: Numbers, loss: Numbers) -> Iterable[Numbers]:
    """Starts for each pair of exponents: E, A and B follow from these by least squares."""
    nnls = part("scipy.optimize").nnls
    for alpha, beta in itertools.product(EXPONENTS, EXPONENTS):
        terms = [numpy.ones_like(n), numpy.exp(-alpha * n), numpy.exp(-beta * d)]
        factors, _ = nnls(
            numpy.stack(terms, axis=1) * numpy.exp(-loss)[:, None], numpy.ones_like(n)
        )
        yield numpy.array([*numpy.log(numpy.maximum(factors, 1e-3)), alpha, beta])


def fit_power(x: Numbers, losses: Numbers) -> Power:
    """The power law of losses over `x`, both (R,), by Huber's loss on the logarithms."""
    logs, loss = numpy.log(x), numpy.log(losses)
    middle = logs.mean()

    def residuals(constants: Numbers) -> tuple[Numbers, Numbers]:
        level, exponent = constants
        slopes = numpy.stack([numpy.ones_like(logs), middle - logs], axis=1)  # (R, 2)
        return level + exponent * (middle - logs) - loss, slopes

    slope, level = numpy.polyfit(logs - middle, loss, 1)
    level, exponent = minimise(residuals, [numpy.array([level, -slope])])
    return Power(float(numpy.exp(middle + level / exponent)), float(exponent))


def fit_joint(runs: list[Run]) -> Joint | None:
    """Kaplan's joint law of the runs; None if they do not determine it.

    It has no irreducible loss, so where there is one an exponent may grow without end.
    """
    require_spread(runs)
    n, d, loss = (numpy.log(column) for column in columns(runs))

    def residuals(constants: Numbers) -> tuple[Numbers, Numbers]:
        return joint_residuals(constants, n, d, loss)

    exponents = [exponent for exponent in EXPONENTS if exponent <= 0.5]
    starts = (
        numpy.array([n.mean() + loss.mean() / of_n, d.mean() + loss.mean() / of_d, of_n, of_d])
        for of_n, of_d in itertools.product(exponents, exponents)
    )
    n_c, d_c, alpha_n, alpha_d = minimise(residuals, best_starts(residuals, starts, FOLLOWED // 4))
    if not (0 < alpha_n < STEEPEST and 0 < alpha_d < STEEPEST):
        return None
    return Joint(float(numpy.exp(n_c)), float(numpy.exp(d_c)), float(alpha_n), float(alpha_d))


def joint_residuals(
    constants: Numbers,
    n: Numbers,
    d: Numbers,
    loss: Numbers,
) -> tuple[Numbers, Numbers]:
    """Logarithm of Kaplan's joint law less log L, and its derivatives."""
    n_c, d_c, alpha_n, alpha_d = constants
    ratio = alpha_n / alpha_d
    of_size, of_tokens = ratio * (n_c - n), d_c - d
    total = numpy.logaddexp(of_size, of_tokens)
    share = numpy.exp(of_size - total)
    slopes = [
        alpha_n * share,
        alpha_d * (1 - share),
        (n_c - n) * share,
        total - ratio * (n_c - n) * share,
    ]
    return alpha_d * total - loss, numpy.stack(slopes, axis=1)  # (R,), (R, 4)


def best_starts(residuals: Residuals, starts: Iterable[Numbers], count: int) -> list[Numbers]:
    """Those of the lowest Huber loss."""
    with numpy.errstate(over="ignore", invalid="ignore"):
        return sorted(starts, key=lambda start: huber(residuals, start)[0])[:count]


def minimise(residuals: Residuals, starts: Iterable[Numbers]) -> Numbers:
    """The constants (K,) of the lowest sum of Huber losses that any start leads to."""
    minimize = part("scipy.optimize").minimize
    # The sum must reach its minimum: stopping early is what misled the first fit of Chinchilla.
    options = {"maxiter": 5000, "maxfun": 20000, "maxcor": 20, "ftol": 1e-13, "gtol": 1e-8}
    # Threads that meet over matrices of forty rows make it twenty times slower.
    single = part("threadpoolctl").threadpool_limits(1)
    with single, numpy.errstate(over="ignore", invalid="ignore"):
        ends = [
            minimize(lambda x: huber(residuals, x), start, jac=True, method="L-BFGS-B",
                     options=options)
            for start in starts
        ]  # fmt: skip
    return numpy.asarray(min(ends, key=lambda end: float(end.fun)).x)


def huber(residuals: Residuals, constants: Numbers) -> tuple[float, Numbers]:
    """The sum of Huber losses in units of DELTA^2, so that it is not minute, and its slope (K,)."""
    found, slopes = residuals(constants)
    scaled = found / DELTA
    sizes = numpy.abs(scaled)
    losses = numpy.where(sizes <= 1, 0.5 * scaled**2, sizes - 0.5)
    return float(losses.sum()), slopes.T @ numpy.clip(scaled, -1, 1) / DELTA


def part(name: str) -> Any:
    """A module of the extra; ValueError says how to get it."""
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"fitting a law needs {error.name}: pip install 'limner[scale]' brings it"
        ) from None


# What can be fitted


def require_spread(runs: list[Run]) -> None:
    """ValueError if five constants do not follow from these runs."""
    if len(runs) < 6:
        raise ValueError(f"{len(runs)} runs do not determine a law of 5 constants: 6 are the least")
    parameters, tokens, _ = columns(runs)
    for name, values in (("sizes", parameters), ("numbers of tokens", tokens)):
        different = numpy.unique(values)
        if len(different) < 3 or different[-1] < SPREAD * different[0]:
            there = ", ".join(f"{value:,.0f}" for value in different[:4])
            raise ValueError(
                f"the runs have too few {name} ({there}): three are the least, the largest twice "
                "the smallest"
            )
    alike = abs(numpy.corrcoef(numpy.log(parameters), numpy.log(tokens))[0, 1])
    if alike > ALIKE:
        raise ValueError(
            f"sizes and tokens rise together (correlation {alike:.4f}), so what either is worth "
            "cannot be told: add runs of one size with other numbers of tokens"
        )


def require_falling(law: Additive) -> None:
    """ValueError if a law says that a larger model, or more text, does not help."""
    for name, exponent in (("parameters", law.alpha), ("tokens", law.beta)):
        if exponent < 0.01:
            raise ValueError(
                f"the losses do not fall with {name} (exponent {exponent:.3g}): the runs are too "
                "short or too much alike, or were trained with unsuitable rates"
            )


# How sure it is


def bootstrap(runs: list[Run], law: Additive, resamples: int, seed: int = 0) -> list[Additive]:
    """The law again for `resamples` draws of as many runs, with replacement (Efron 1979).

    Draws that do not determine a law are drawn again.
    """
    generator = numpy.random.default_rng(seed)
    found: list[Additive] = []
    for _ in range(10 * resamples):
        drawn = [runs[place] for place in generator.integers(len(runs), size=len(runs))]
        try:
            found.append(fit_additive(drawn, near=law))
        except ValueError:
            continue
        if len(found) == resamples:
            return found
    raise ValueError(
        f"of {len(runs)} runs too few draws determine a law: add runs, or set resamples=0"
    )
