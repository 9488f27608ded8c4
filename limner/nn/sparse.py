"""Which keys a sparse attention layer may see.

B batch, T queries, S keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Banded:
    """The `band` nearest places, and every `stride`-th place before (Child et al. 2019).

    Without `stride` the band alone. GPT-3 alternates such layers with dense ones (Brown et al.
    2020). Places count backwards from the query, so a text means the same wherever it is packed.
    """

    band: int
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.band < 1 or (self.stride is not None and self.stride < 1):
            raise ValueError(
                f"a band of {self.band} and a stride of {self.stride} are no sparse pattern: "
                "both must be 1 or more"
            )

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """True (B, 1, T, S) where the query at `query` (B, T) may see the key at `key` (B, S)."""
        distance = query[:, None, :, None] - key[:, None, None, :]  # (B, 1, T, S)
        near = distance.abs() < self.band
        return near if self.stride is None else near | (distance % self.stride == 0)
