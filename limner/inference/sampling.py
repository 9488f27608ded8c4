"""How the next token is chosen: the settings of one request, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The settings of one request. The processors run in the order of the fields below.

    Raises ValueError that names the setting, its value and its range.
    """

    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    """Added to a token's logit; -inf bans the token."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens in the prompt or the answer
    (Keskar et al. 2019); 1 is off."""
    frequency_penalty: float = 0.0
    """Subtracted once for each time the token is in the answer; -2 to 2."""
    presence_penalty: float = 0.0
    """Subtracted once when the token is in the answer; -2 to 2."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable token, the lowest id among equals."""
    top_k: int = 0
    """Keep the k most probable tokens (Fan et al. 2018); 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set whose probability reaches p (Holtzman et al. 2020); 1 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least min_p times as probable as the best (Nguyen et al. 2024); 0 is off."""
    seed: int | None = None
    """Makes the answer repeatable; without it the engine takes a fresh one."""
    max_tokens: int | None = None
    """Tokens to generate at most; without it, what is left of the context."""
    stop: tuple[str, ...] = ()
    """Text that ends the answer and is not part of it."""
    stop_tokens: tuple[int, ...] = ()
    """Token ids that end the answer, beside the model's own end tokens."""
    ignore_eos: bool = False
    """Go on after the model's end token."""
    logprobs: int | None = None
    """Report the chosen token's log-probability and those of this many best tokens; None is off."""
    logprobs_of: Literal["model", "processed"] = "model"
    """Whose: the model's own (log-softmax of its logits, what a trainer computes), or those that
    the token was drawn from (at temperature 0: those whose maximum was taken)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _strings(self.stop))
        object.__setattr__(self, "stop_tokens", tuple(self.stop_tokens))
        _number("temperature", self.temperature, 0)
        _number("top_p", self.top_p, 0, 1)
        _number("min_p", self.min_p, 0, 1)
        _number("frequency_penalty", self.frequency_penalty, -2, 2)
        _number("presence_penalty", self.presence_penalty, -2, 2)
        _number("repetition_penalty", self.repetition_penalty, 0)
        if self.repetition_penalty == 0:
            raise ValueError("repetition_penalty must be above 0, not 0 (1 switches it off)")
        self._check_counts()
        self._check_tokens()

    def _check_counts(self) -> None:
        _integer("top_k", self.top_k, 0, "; 0 keeps all tokens")
        for name, least in (("max_tokens", 1), ("logprobs", 0), ("seed", None)):
            value = getattr(self, name)
            if value is not None:
                _integer(name, value, least)
        if self.logprobs_of not in ("model", "processed"):
            wrong = self.logprobs_of
            raise ValueError(f"logprobs_of must be 'model' or 'processed', not {wrong!r}")

    def _check_tokens(self) -> None:
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which ends every answer: leave it out")
        for token in self.stop_tokens:
            _integer("stop_tokens", token, 0)
        for token, bias in self.logit_bias.items():
            _integer("logit_bias token", token, 0)
            if bias != -math.inf and not math.isfinite(bias):
                raise ValueError(f"logit_bias of token {token} must be finite or -inf, not {bias}")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken, so that no random number is needed."""
        return self.temperature == 0


def _strings(stop: str | Iterable[str]) -> tuple[str, ...]:
    """A lone string is one stop string, not one for each of its characters."""
    strings: tuple[object, ...] = (stop,) if isinstance(stop, str) else tuple(stop)
    for string in strings:
        if not isinstance(string, str):
            raise ValueError(f"stop must hold strings, not {string!r}")
    return tuple(map(str, strings))


def _number(name: str, value: object, least: float, most: float = math.inf) -> None:
    bound = f"{least} or more" if most == math.inf else f"from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number {bound}, not {value!r}")
    if not (math.isfinite(value) and least <= value <= most):
        raise ValueError(f"{name} must be {bound}, not {value}")


def _integer(name: str, value: object, least: int | None, why: str = "") -> None:
    if isinstance(value, int) and not isinstance(value, bool) and (least is None or value >= least):
        return
    bound = "" if least is None else f", {least} or more{why}"
    raise ValueError(f"{name} must be a whole number{bound}, not {value!r}")


DEFAULT = Sampling()
"""The model's own distribution, to the end of the context."""
