"""Matrices in a few bits, before any program's way of laying them out.

N outputs, K inputs, G groups of inputs, C columns kept apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from limner import kernels
from limner.kernels import PackedWeight
from limner.nn.scaled import ScaledWeight


@dataclass(frozen=True)
class Grid:
    """Which numbers a matrix is rounded to.

    `group` inputs of a row share a scale, None: the whole row. A symmetric grid has its zero in the
    middle of the codes; another has a zero of each group's own, so a minimum. That zero is a code,
    or with `minimum` any number, as the minimum is a half of its own in GGUF's Q4_1. A `floating`
    one has no codes but floats of 8 bits (`FLOAT8_GRID`).
    """

    bits: int = 4
    group: int | None = 32
    symmetric: bool = False
    minimum: bool = False
    floating: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, not {self.bits}")
        if self.group is not None and (self.group < 32 or self.group % 32):
            raise ValueError(f"group must be a multiple of 32, not {self.group}")
        whole = (self.bits, self.group, self.symmetric) == (8, None, True)
        assert whole or not self.floating

    @property
    def middle(self) -> int:
        """The code of zero in a symmetric grid."""
        return 2 ** (self.bits - 1)

    @property
    def highest(self) -> int:
        """The largest code; the smallest is 0."""
        return 2**self.bits - 1

    def group_of(self, inputs: int) -> int:
        """Inputs a group; ValueError if groups do not divide `inputs`."""
        group = inputs if self.group is None else self.group
        if inputs % group:
            raise ValueError(
                f"groups of {group} do not divide {inputs} inputs: choose a group that does"
            )
        return group


#: Floats of 8 bits, e4m3, with a scale for each whole row.
FLOAT8_GRID = Grid(8, None, symmetric=True, floating=True)


@dataclass(frozen=True)
class GroupedWeight:
    """A matrix (N, K) whose values are scale x (code - zero).

    `codes` uint8 (N, K); `scales` of a float type and `zeros` uint8, or float32 where they are no
    codes, both (N, G). `group_of` (K,) is the group of each input where groups are not simply one
    behind another (GPTQ's act-order).
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bits: int
    group_of: Tensor | None = None

    @property
    def group(self) -> int:
        """Inputs a group."""
        return self.codes.shape[1] // self.scales.shape[1]

    @property
    def symmetric(self) -> bool:
        """Whether every zero is the middle of the codes."""
        return bool((self.zeros == 2 ** (self.bits - 1)).all())

    @property
    def numbers(self) -> int:
        """How many there are."""
        return self.codes.numel()

    @property
    def stored_bits(self) -> int:
        """What the numbers take on disk, zeros in as many bits as codes if they are needed.

        Those that are no codes are kept as minima of half precision.
        """
        bits = 16 if self.zeros.is_floating_point() else self.bits
        zeros = 0 if self.symmetric else self.zeros.numel() * bits
        return self.codes.numel() * self.bits + 8 * self.scales.nbytes + zeros

    def dequantize(self) -> Tensor:
        """The matrix as float32 (N, K)."""
        if self.group_of is not None:
            scales, zeros = self.scales[:, self.group_of], self.zeros[:, self.group_of]
            return (self.codes.float() - zeros.float()) * scales.float()
        grouped = self.codes.float().unflatten(1, (self.scales.shape[1], -1))  # (N, G, K/G)
        grouped = grouped - self.zeros.float()[..., None]
        return (grouped * self.scales.float()[..., None]).flatten(1)

    def rows(self, numbers: Tensor) -> GroupedWeight:
        """The rows of these numbers."""
        codes, scales, zeros = (part[numbers] for part in (self.codes, self.scales, self.zeros))
        return GroupedWeight(codes, scales, zeros, self.bits, self.group_of)

    def scaled(self) -> ScaledWeight | None:
        """The matrix as int8 with a scale for each row; None if it is not of that kind."""
        if self.bits != 8 or self.scales.shape[1] != 1 or not self.symmetric:
            return None
        return ScaledWeight((self.codes ^ 128).view(torch.int8), self.scales)

    def packed(self) -> PackedWeight | None:
        """The matrix in the kernels' form; None where they cannot compute with it.

        They take groups of 32 inputs, one behind another, of 4 bits or of 8 symmetric ones, and
        scales in half precision; groups of 64 or 128 become several that share a scale.
        """
        outputs, inputs = self.codes.shape
        halves = self.scales.half()
        fits = halves.isfinite().all() and bool(((halves != 0) == (self.scales != 0)).all())
        if self.group_of is not None or self.group % kernels.GROUP or not fits:
            return None
        repeats = self.group // kernels.GROUP
        scales = halves.repeat_interleave(repeats, 1)
        codes = self.codes.view(outputs, inputs // kernels.GROUP, kernels.GROUP)
        if self.symmetric:
            signed = (codes ^ (128 if self.bits == 8 else 0)).view(torch.int8)
            if self.bits == 8:
                return kernels.pack(signed, scales)
            return kernels.pack(signed - 8, scales, bits=4)
        if self.bits != 4:
            return None
        minimum = (-self.scales.float() * self.zeros).half().repeat_interleave(repeats, 1)
        return kernels.pack(codes, scales, minimum)


def joined(weights: list[GroupedWeight]) -> GroupedWeight:
    """Matrices of the same inputs and groups as one, the rows of the first first."""
    first = weights[0]
    parts = ([w.codes for w in weights], [w.scales for w in weights], [w.zeros for w in weights])
    codes, scales, zeros = (torch.cat(part) for part in parts)
    return GroupedWeight(codes, scales, zeros, first.bits, first.group_of)


@dataclass(frozen=True)
class OutlierWeight:
    """A matrix in 8 bits except for the columns of a few inputs, which keep their numbers.

    `columns` int64 (C,) are those inputs, `values` (N, C) their weights; in `rest` they are zero
    (LLM.int8(), Dettmers et al. 2022).
    """

    rest: GroupedWeight
    columns: Tensor
    values: Tensor

    @property
    def numbers(self) -> int:
        """How many there are."""
        return self.rest.numbers

    @property
    def stored_bits(self) -> int:
        """What the numbers take on disk."""
        return self.rest.stored_bits + 8 * (self.columns.nbytes + self.values.nbytes)

    def dequantize(self) -> Tensor:
        """The matrix as float32 (N, K)."""
        matrix = self.rest.dequantize()
        matrix[:, self.columns] = self.values.float()
        return matrix

    def rows(self, numbers: Tensor) -> OutlierWeight:
        """The rows of these numbers."""
        return OutlierWeight(self.rest.rows(numbers), self.columns, self.values[numbers])
