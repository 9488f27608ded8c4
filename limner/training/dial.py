"""One dial: from a depth to a model and to how it is trained, every value open to change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limner.models.counting import count_parameters, on_meta
from limner.models.families import find_family

#: Width of the stream for each layer, and of a head.
ASPECT, HEAD = 64, 64
#: Tokens a parameter (Hoffmann et al. 2022).
HORIZON = 20
LENGTH = 1024


@dataclass(frozen=True)
class Derived:
    """What follows from a depth: the fields of a config.json, and settings of the run."""

    model: dict[str, Any]
    length: int
    rows: int
    steps: int
    rate: float
    parameters: int

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.rows * self.length

    def lines(self) -> list[str]:
        """Every value and the setting that changes it, for people."""
        values = {f"model.{name}": value for name, value in self.model.items()}
        values |= {"length": self.length, "rows": self.rows, "steps": self.steps}
        values |= {"optimizer.rate": self.rate, "(parameters)": self.parameters}
        values["(tokens)"] = self.tokens
        width = max(map(len, values))
        return [f"{name:{width}}  {_written(value)}" for name, value in values.items()]


def derive(depth: int, model: Mapping[str, Any], given: Mapping[str, Any]) -> Derived:
    """A Llama of `depth` layers and its training.

    The width is 64 a layer, in heads of 64. It sees 20 tokens a parameter (Hoffmann et al. 2022).
    Batch and rate follow from the computation C = 6 x parameters x tokens by DeepSeek's laws
    (Bi et al. 2024): 0.292 C^0.3271 tokens and 0.3118 C^-0.125.

    Args:
        depth: layers.
        model: fields of config.json that are known, such as vocab_size, or chosen otherwise.
        given: of `length`, `rows`, `steps`, `tokens` and `rate` those that are chosen otherwise.
    """
    length = given.get("length", LENGTH)
    fields = shape(depth, length, model)
    network = on_meta(find_family(fields["model_type"]).read_config(fields))
    parameters = count_parameters(network)
    tokens = given.get("tokens", HORIZON * parameters)
    computation = 6 * parameters * tokens
    rows = given.get("rows", max(round(0.292 * computation**0.3271 / length), 1))
    rate = given.get("rate", float(f"{0.3118 * computation**-0.125:.2g}"))
    steps = given.get("steps", max(math.ceil(tokens / (rows * length)), 1))
    return Derived(fields, length, rows, steps, rate, parameters)


def shape(depth: int, length: int, model: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Llama's config.json; those in `model` stand, and others follow from them."""
    width = model.get("hidden_size", ASPECT * depth)
    return {
        "model_type": "llama",
        "num_hidden_layers": depth,
        "hidden_size": width,
        "num_attention_heads": max(width // HEAD, 1),
        # Two thirds of four widths, since a gated layer has three matrices (Shazeer 2020).
        "intermediate_size": math.ceil(8 * width / 3 / 32) * 32,
        "max_position_embeddings": length,
        "tie_word_embeddings": True,
    } | dict(model)


def _written(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
