"""What the compute there is should be spent on: a model, its tokens, and the loss to expect."""

from __future__ import annotations

import math
from dataclasses import dataclass

from limner.models.counting import count_parameters, on_meta
from limner.models.families import find_family
from limner.scaling.fit import Known
from limner.scaling.laws import OPERATIONS
from limner.training.dial import HEAD, Derived, derive, shape
from limner.training.doctor.resources import Memory, memory_of
from limner.training.settings import TrainingSettings

#: A width may be this far from 64 a layer, as a share of it.
STRETCH = 0.25


@dataclass(frozen=True)
class Hardware:
    """What computes: `peak` operations a second of a device, and the share that training reaches.

    `price` is that of an hour of one device.
    """

    peak: float
    utilisation: float = 0.4
    devices: int = 1
    price: float | None = None

    @property
    def speed(self) -> float:
        """Operations a second that count."""
        return self.peak * self.utilisation * self.devices

    def hours(self, computation: float) -> float:
        """How long so many operations take."""
        return computation / self.speed / 3600

    def cost(self, computation: float) -> float | None:
        """What they cost, if the price is known."""
        if self.price is None:
            return None
        return self.hours(computation) * self.devices * self.price


@dataclass(frozen=True)
class Plan:
    """The optimum of a law (`best_parameters`, `best_tokens`) and the nearest model there is.

    `loss` and its interval of 95% are of that model; `memory` leaves activations out.
    """

    best_parameters: float
    best_tokens: float
    model: Derived
    loss: float
    interval: tuple[float, float] | None
    memory: Memory

    @property
    def computation(self) -> float:
        """Operations of training the model."""
        return float(OPERATIONS * self.model.parameters * self.model.tokens)

    def command(self) -> str:
        """What trains it."""
        depth, width = (self.model.model[name] for name in ("num_hidden_layers", "hidden_size"))
        return (
            f"limner pretrain DATA FOLDER --depth {depth} model.hidden_size={width} "
            f"length={self.model.length} tokens={self.model.tokens}"
        )


def plan(
    known: Known,
    *,
    computation: float | None = None,
    tokens: float | None = None,
    parameters: float | None = None,
    vocabulary: int = 32_000,
    length: int = 2048,
) -> Plan:
    """The best model for so many operations, or for so many tokens, or the tokens of a size.

    Args:
        known: the law to go by.
        computation: operations there are; the model spends them all.
        tokens: tokens there are; the size is that for which they are the optimum.
        parameters: the size there is; the tokens are its optimum.
        vocabulary: tokens that the model knows; their vectors are among its parameters.
        length: tokens of a row.

    Raises:
        ValueError: not exactly one of the three is given, or it asks for a model that the dial
            cannot make.
    """
    best, seen = optimum(known, computation, tokens, parameters)
    depth, width = nearest_shape(best, vocabulary, length)
    given = {"length": length, "tokens": math.ceil(seen)}
    fields = {"vocab_size": vocabulary, "hidden_size": width}
    if computation is not None:
        size = derive(depth, fields, given).parameters
        given["tokens"] = max(round(computation / OPERATIONS / size), 1)
    model = derive(depth, fields, given)
    loss, interval = known.expect(model.parameters, model.tokens)
    network = on_meta(find_family("llama").read_config(model.model))
    memory = memory_of(network, TrainingSettings(), activations=0)
    return Plan(best, seen, model, loss, interval, memory)


def optimum(
    known: Known, computation: float | None, tokens: float | None, parameters: float | None
) -> tuple[float, float]:
    """The law's parameters and tokens for the one thing that is given."""
    given = [x for x in (computation, tokens, parameters) if x is not None]
    if len(given) != 1:
        raise ValueError(
            f"{len(given)} things to go by: give one of compute, hours with peak, tokens and "
            "parameters"
        )
    if not (math.isfinite(given[0]) and given[0] >= 1):
        raise ValueError(f"{given[0]:g} leaves nothing to plan: give a number of 1 or more")
    if computation is not None:
        return known.law.optimum(computation)
    if tokens is not None:
        return known.law.parameters_for(tokens), tokens
    assert parameters is not None
    return parameters, known.law.tokens_for(parameters)


def nearest_shape(parameters: float, vocabulary: int, length: int) -> tuple[int, int]:
    """Depth and width of the Llama nearest in size, whole heads wide and nearly 64 a layer.

    Raises ValueError if a layer of one head is more than twice too large, which is mostly the
    vocabulary's doing.
    """
    least, _ = sizes(HEAD, vocabulary, length)
    if least > 2 * parameters:
        raise ValueError(
            f"the best size is {parameters:,.0f} parameters, and a layer {HEAD} wide with a "
            f"vocabulary of {vocabulary:,} has {least:,}: lower vocabulary, or spend more"
        )
    dial = dial_depth(parameters, vocabulary)
    more = max(int(STRETCH * dial), 1)
    choices = []
    for heads in range(max(dial - more, 1), dial + more + 1):
        first, further = sizes(HEAD * heads, vocabulary, length)
        depth = max(round((parameters - first) / further) + 1, 1)
        distance = abs(math.log((first + (depth - 1) * further) / parameters))
        if abs(depth - heads) <= max(STRETCH * heads, 1):
            choices.append((distance, depth, HEAD * heads))
    assert choices, "the dial's own width has a depth"
    return min(choices)[1:]


def sizes(width: int, vocabulary: int, length: int) -> tuple[int, int]:
    """Parameters of a Llama of one layer, and of each further layer."""
    one, two = (
        count_parameters(
            on_meta(
                find_family("llama").read_config(
                    shape(depth, length, {"vocab_size": vocabulary, "hidden_size": width})
                )
            )
        )
        for depth in (1, 2)
    )
    return one, two - one


def dial_depth(parameters: float, vocabulary: int) -> int:
    """The depth whose model, 64 wide a layer, comes nearest, by the count of its matrices."""

    def distance(depth: int) -> float:
        width = HEAD * depth
        return abs(math.log((12 * depth * width**2 + vocabulary * width) / parameters))

    deepest = 2 + int((parameters / (12 * HEAD**2)) ** (1 / 3))
    return min(range(1, deepest + 1), key=distance)
