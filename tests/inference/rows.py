"""Rows and logits to sample from, without an engine."""

from dataclasses import dataclass, field

import torch

from limner.inference.constraints import Constraint
from limner.inference.sampling import Sampling


@dataclass
class Row:
    """A sequence as the sampler sees it."""

    sampling: Sampling
    tokens: list[int] = field(default_factory=lambda: [0])
    prompt_length: int = 1
    seed: int = 0
    sample: int = 0
    allowed: torch.Tensor | None = None
    constraint: Constraint | None = None


def some_logits(rows, vocabulary, seed=0, spread=3.0):
    """Logits (rows, vocabulary), the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, vocabulary, generator=generator) * spread
