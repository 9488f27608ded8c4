"""How a GGUF file says that vectors of tokens become one of the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gguf import PoolingType

from limner.models.sentence import DenseConfig, Mode, PoolingConfig, StepConfig

MODES: Mapping[Mode, PoolingType] = {
    "mean": PoolingType.MEAN,
    "first": PoolingType.CLS,
    "last": PoolingType.LAST,
}


def read_pooling(metadata: Mapping[str, Any]) -> PoolingConfig:
    """What the metadata of a file say; the mean if they say nothing."""
    kind = metadata.get(f"{metadata.get('general.architecture')}.pooling_type")
    modes = {number: mode for mode, number in MODES.items()}
    return PoolingConfig((modes[kind],)) if kind in modes else PoolingConfig()


def write_pooling(
    architecture: str, pooling: PoolingConfig, steps: Sequence[StepConfig]
) -> dict[str, int]:
    """The metadata for a file of this architecture.

    Division by the length is not said: programs that run llama.cpp do it themselves.

    Raises:
        ValueError: llama.cpp pools in no such way, or would leave out a projection.
    """
    if len(pooling.modes) > 1 or pooling.modes[0] not in MODES:
        raise ValueError(
            f"this sentence encoder pools by '{', '.join(pooling.modes)}' but a GGUF file can say "
            f"{', '.join(MODES)}: it has no GGUF form"
        )
    if any(isinstance(step, DenseConfig) for step in steps):
        raise ValueError(
            "this sentence encoder projects the pooled vector, which a GGUF file has no place for"
        )
    return {f"{architecture}.pooling_type": int(MODES[pooling.modes[0]])}
