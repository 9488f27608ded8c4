"""The laws: which loss is to be expected of so many parameters and so many tokens.

L loss in nats a token, N parameters, D tokens, C = 6 N D operations of training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

import numpy

from limner.scaling.runs import Numbers

#: Operations a parameter and token: a multiplication and an addition, forward and twice backward.
OPERATIONS = 6


@dataclass(frozen=True)
class Additive:
    """L = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022); only E is irreducible."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, parameters: Numbers | float, tokens: Numbers | float) -> Numbers:
        """The loss to expect."""
        of_size = self.A / numpy.asarray(parameters, float) ** self.alpha
        return self.E + of_size + self.B / numpy.asarray(tokens, float) ** self.beta

    def optimum(self, computation: float) -> tuple[float, float]:
        """Parameters and tokens of the least loss that so many operations can buy.

        Where N^alpha / D^beta = alpha A / (beta B) and 6 N D = C.
        """
        exponent = self.beta / (self.alpha + self.beta)
        parameters = self.ratio ** (1 / (self.alpha + self.beta))
        parameters *= (computation / OPERATIONS) ** exponent
        return parameters, computation / OPERATIONS / parameters

    def parameters_for(self, tokens: float) -> float:
        """The size for which so many tokens are the optimum."""
        return float((self.ratio * tokens**self.beta) ** (1 / self.alpha))

    def tokens_for(self, parameters: float) -> float:
        """The tokens that are the optimum of a size."""
        return float((parameters**self.alpha / self.ratio) ** (1 / self.beta))

    @property
    def ratio(self) -> float:
        """N^alpha / D^beta at every optimum."""
        return self.alpha * self.A / (self.beta * self.B)

    @property
    def exponents(self) -> tuple[float, float]:
        """How the best size and the tokens grow: N as C to the first, D as C to the second."""
        return tuple(x / (self.alpha + self.beta) for x in (self.beta, self.alpha))  # type: ignore[return-value]


@dataclass(frozen=True)
class Power:
    """L = (scale / x)^exponent: Kaplan et al. 2020 for N, for D and for C, the others no limit."""

    scale: float
    exponent: float

    def loss(self, x: Numbers | float) -> Numbers:
        """The loss to expect."""
        return numpy.exp(self.exponent * (numpy.log(self.scale) - numpy.log(x)))


@dataclass(frozen=True)
class Joint:
    """L = ((n_c / N)^(alpha_n / alpha_d) + d_c / D)^alpha_d (Kaplan et al. 2020, equation 1.5)."""

    n_c: float
    d_c: float
    alpha_n: float
    alpha_d: float

    def loss(self, parameters: Numbers | float, tokens: Numbers | float) -> Numbers:
        """The loss to expect."""
        of_size = (self.n_c / numpy.asarray(parameters, float)) ** (self.alpha_n / self.alpha_d)
        return (of_size + self.d_c / numpy.asarray(tokens, float)) ** self.alpha_d


#: As Hoffmann et al. 2022 print them (approach 3), and as Besiroglu et al. 2024 fitted the same
#: runs again, having found that the first fit had stopped before its minimum.
PUBLISHED: Mapping[str, Additive] = {
    "chinchilla": Additive(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28),
    "besiroglu": Additive(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658),
}


def interval(values: Numbers, share: float = 0.95) -> tuple[float, float]:
    """The middle `share` of bootstrapped values."""
    low, high = numpy.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def intervals(laws: list[Additive]) -> dict[str, tuple[float, float]]:
    """The interval of each constant."""
    names = Additive.__dataclass_fields__
    return dict(zip(names, map(interval, numpy.array([astuple(x) for x in laws]).T), strict=True))
