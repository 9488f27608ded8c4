"""What an adapter_config.json says of a LoRA adapter, read and written.

Modules are called as transformers calls them ("model.layers.0.self_attn.q_proj").
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

Number = TypeVar("Number", int, float)

#: Asks for every linear layer but the head.
ALL_LINEAR = "all-linear"

#: Ways to begin that leave the model's own weights as they are; others (PiSSA, OLoRA, LoftQ ...)
#: change them, so that their matrices alone say nothing.
BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")

#: Fields that say nothing about what an adapter computes.
REMARKS = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "inference_mode", "loftq_config",
    "megatron_core", "peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "task_type",
}  # fmt: skip

#: Fields that say it, and are understood.
UNDERSTOOD = {
    "alpha_pattern", "bias", "exclude_modules", "fan_in_fan_out", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "r", "rank_pattern",
    "target_modules", "use_rslora",
}  # fmt: skip


@dataclass(frozen=True)
class LoraConfig:
    """Which modules a LoRA adapter (Hu et al. 2021, arXiv 2106.09685) changes, and how much.

    `targets` are the last parts of modules' names, or one regular expression of whole names, or
    "all-linear"; `excludes` likewise. `layers` are the numbers of the layers changed, all if not
    given, which stand after one of `layers_pattern` in a name. The product of the two matrices is
    multiplied by alpha / rank, or by alpha / sqrt(rank) if `stabilised` (rsLoRA, arXiv 2312.03732).
    `ranks` and `alphas` hold other numbers for modules by the ends of their names, which are
    regular expressions. `dropout` is the share of inputs left out in training. `base` and `task`
    are remarks: which model it is for, and peft's name of what it does.

    Raises ValueError for numbers that make no sense.
    """

    targets: str | tuple[str, ...]
    rank: int = 8
    alpha: float = 8
    stabilised: bool = False
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    excludes: str | tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    layers_pattern: tuple[str, ...] = ()
    dropout: float = 0.0
    base: str | None = None
    task: str | None = "CAUSAL_LM"

    def __post_init__(self) -> None:
        for rank in (self.rank, *self.ranks.values()):
            if rank < 1:
                raise ValueError(f"a LoRA adapter's rank must be 1 or more, not {rank}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {self.dropout}")
        if not self.targets:
            raise ValueError("targets names no modules: say which are changed, or 'all-linear'")
        for pattern in (self.targets, self.excludes, *self.ranks, *self.alphas):
            _check_pattern(pattern)

    def rank_of(self, module: str) -> int:
        """The rank of the change to a module."""
        return _by_pattern(self.ranks, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What the product of its two matrices is multiplied by."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alphas, module, self.alpha)
        return alpha / math.sqrt(rank) if self.stabilised else alpha / rank

    def changes(self, module: str) -> bool:
        """Whether a module that can be changed is, as the peft library decides it."""
        if self.excludes and _named(self.excludes, module):
            return False
        if self.targets == ALL_LINEAR:
            return True
        if isinstance(self.targets, str) or module in self.targets:
            return _named(self.targets, module)
        return _named(self.targets, module) and (not self.layers or self._layer(module))

    def _layer(self, module: str) -> bool:
        """Whether a module's layer is one of those changed."""
        patterns = [rf"(?:^|.*?\.){pattern}\.(\d+)\." for pattern in self.layers_pattern]
        found = (re.match(pattern, module) for pattern in patterns or [r".*?\.[^.]*\.(\d+)\."])
        first = next((match for match in found if match), None)
        return first is not None and int(first[1]) in self.layers


def _check_pattern(pattern: str | tuple[str, ...]) -> None:
    if isinstance(pattern, str):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"'{pattern}' is no regular expression: {error}") from None


def _named(names: str | tuple[str, ...], module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _by_pattern(patterns: Mapping[str, Number], module: str, default: Number) -> Number:
    found = (key for key in patterns if re.match(rf"(.*\.)?({key})$", module))
    return patterns.get(next(found, module), default)


def read_config(fields: Mapping[str, Any], path: Path) -> LoraConfig:
    """The config in the fields of the adapter_config.json at `path`.

    Raises ValueError, naming the field, for another method than LoRA and for what is not
    supported.
    """
    _check_supported(fields, path)
    try:
        return LoraConfig(
            targets=_names(fields["target_modules"]),
            rank=int(fields.get("r", 8)),
            alpha=float(fields.get("lora_alpha", 8)),
            stabilised=bool(fields.get("use_rslora")),
            ranks={str(key): int(rank) for key, rank in _table(fields, "rank_pattern")},
            alphas={str(key): float(alpha) for key, alpha in _table(fields, "alpha_pattern")},
            excludes=_names(fields.get("exclude_modules") or ()),
            layers=tuple(int(layer) for layer in _many(fields.get("layers_to_transform"))),
            layers_pattern=tuple(_many(fields.get("layers_pattern") or None)),
            dropout=float(fields.get("lora_dropout") or 0.0),
            base=fields.get("base_model_name_or_path"),
            task=fields.get("task_type"),
        )
    except KeyError as missing:
        raise ValueError(f"'{path}' has no field {missing}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"'{path}': {error}") from None


def _check_supported(fields: Mapping[str, Any], path: Path) -> None:
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"'{path}' is an adapter of the kind {kind}: limner reads LORA")
    if fields.get("use_dora"):
        raise ValueError(f"'{path}' sets use_dora: limner does not read DoRA yet, only plain LoRA")
    if fields.get("bias", "none") != "none":
        raise ValueError(
            f"'{path}' sets bias to '{fields['bias']}': limner reads adapters that leave the "
            "model's biases alone (bias='none')"
        )
    if fields.get("init_lora_weights", True) not in BEGINNINGS:
        raise ValueError(
            f"'{path}' sets init_lora_weights to '{fields['init_lora_weights']}', which changes "
            "the model's own weights: save it as plain LoRA with peft's "
            "path_initial_model_for_weight_conversion"
        )
    for name, value in fields.items():
        if value and name not in REMARKS | UNDERSTOOD:
            raise ValueError(f"'{path}' sets {name}: limner does not support that, only plain LoRA")


def _names(given: str | Iterable[str]) -> str | tuple[str, ...]:
    return given if isinstance(given, str) else tuple(given)


def _many(given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)


def _table(fields: Mapping[str, Any], name: str) -> Iterable[tuple[Any, Any]]:
    return cast("Mapping[Any, Any]", fields.get(name) or {}).items()


def write_config(config: LoraConfig, *, input_first: bool = False) -> dict[str, Any]:
    """The fields of an adapter_config.json; `input_first` if matrices are kept so (GPT-2)."""
    return {
        "peft_type": "LORA",
        "task_type": config.task,
        "base_model_name_or_path": config.base,
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.stabilised,
        "rank_pattern": dict(config.ranks),
        "alpha_pattern": dict(config.alphas),
        "target_modules": _written(config.targets),
        "exclude_modules": _written(config.excludes) or None,
        "layers_to_transform": list(config.layers) or None,
        "layers_pattern": list(config.layers_pattern) or None,
        "fan_in_fan_out": input_first,
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _written(names: str | tuple[str, ...]) -> str | list[str]:
    return names if isinstance(names, str) else list(names)
