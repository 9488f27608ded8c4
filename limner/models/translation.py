"""Between a checkpoint's tensors and our parameters, both ways.

A family lists its translations; loading and saving read the same list, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


def _unchanged(tensors: Tensors) -> Tensors:
    return tensors


@dataclass(frozen=True)
class Translation:
    """Some tensors of a checkpoint that make some of our parameters, and back.

    `optional` ones may be absent from a file (a tied head, a computed buffer).
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    load: Callable[[Tensors], Tensors] = _unchanged
    save: Callable[[Tensors], Tensors] = _unchanged
    optional: bool = False


def renamed(names: Mapping[str, str], layers: int) -> Iterator[Translation]:
    """Same tensor, other name; `{}` in both names stands for each layer's number."""
    for theirs, ours in names.items():
        for layer in range(layers) if "{}" in theirs else [0]:
            yield Translation((theirs.format(layer),), (ours.format(layer),))


def transposed(names: Mapping[str, str], layers: int) -> Iterator[Translation]:
    """Matrices kept input-first by the checkpoint, output-first by us."""
    for same in renamed(names, layers):
        yield Translation(same.theirs, same.ours, _transpose, _transpose)


def _transpose(tensors: Tensors) -> Tensors:
    return [tensor.t() for tensor in tensors]


def split(
    theirs: str, ours: Iterable[str], sizes: Sequence[int], *, transpose: bool = False
) -> Translation:
    """One fused tensor there, several here, cut along the output dimension in pieces of `sizes`."""

    def load(tensors: Tensors) -> Tensors:
        (fused,) = tensors
        return (fused.t() if transpose else fused).split(list(sizes))

    def save(tensors: Tensors) -> Tensors:
        fused = torch.cat(list(tensors))
        return [fused.t() if transpose else fused]

    return Translation((theirs,), tuple(ours), load, save)


def interleaved_rows(theirs: str, ours: str, heads: int) -> Translation:
    """Rows of a query or key matrix, which GGUF files of Llama's kind keep in another order.

    There each head's rows stand in rotary pairs (0, 1), (2, 3) ...; here row i is paired with row
    i + half. Only whole rows move, so quantised rows can move too.
    """

    def load(tensors: Tensors) -> Tensors:
        (rows,) = tensors
        return [rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)]

    def save(tensors: Tensors) -> Tensors:
        (rows,) = tensors
        return [rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)]

    return Translation((theirs,), (ours,), load, save)
