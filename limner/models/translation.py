"""Between a checkpoint's tensors and our parameters, both ways.

A family lists its translations; loading and saving read the same list, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


def _unchanged(tensors: Tensors) -> Tensors:
    return tensors


@dataclass(frozen=True)
class Translation:
    """Some tensors of a checkpoint that make some of our parameters, and back.

    `optional` ones may be absent from a file (a computed buffer); `instead` are the tensors to read
    where a file leaves `theirs` out because they are equal. `moves_rows`: `load` puts whole rows of
    a matrix elsewhere and does nothing else.
    """

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    load: Callable[[Tensors], Tensors] = _unchanged
    save: Callable[[Tensors], Tensors] = _unchanged
    optional: bool = False
    instead: tuple[str, ...] = ()
    moves_rows: bool = False

    @property
    def keeps_rows(self) -> bool:
        """Whether no row of a matrix is changed, so that `load` takes compressed rows as well."""
        return self.moves_rows or self.load is _unchanged


def renamed(names: Mapping[str, str], layers: int) -> Iterator[Translation]:
    """Same tensor, other name; `{}` in both names stands for each layer's number."""
    for theirs, ours in names.items():
        for layer in range(layers) if "{}" in theirs else [0]:
            yield Translation((theirs.format(layer),), (ours.format(layer),))


def renamed_in_layer(names: Mapping[str, str], layer: int) -> Iterator[Translation]:
    """Same tensors, other names, in one layer, whose number `{}` stands for."""
    for theirs, ours in names.items():
        yield Translation((theirs.format(layer),), (ours.format(layer),))


def shifted(names: Mapping[str, str], by: float) -> Iterator[Translation]:
    """Tensors larger by `by` in the checkpoint."""

    def load(tensors: Tensors) -> Tensors:
        return [tensor - by for tensor in tensors]

    def save(tensors: Tensors) -> Tensors:
        return [tensor + by for tensor in tensors]

    for theirs, ours in names.items():
        yield Translation((theirs,), (ours,), load, save)


def transposed(names: Mapping[str, str], layers: int) -> Iterator[Translation]:
    """Matrices kept input-first by the checkpoint, output-first by us."""
    for same in renamed(names, layers):
        yield replace(same, load=_transpose, save=_transpose)


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

    return Translation((theirs,), tuple(ours), load, save, moves_rows=not transpose)


def split_heads(theirs: str, ours: Iterable[str], heads: int, sizes: Sequence[int]) -> Translation:
    """One fused tensor there, several here, cut within each of `heads` in pieces of `sizes` rows.

    There the rows of a head's query, key and value stand together, before those of the next head.
    """

    def load(tensors: Tensors) -> Tensors:
        (fused,) = tensors
        pieces = fused.unflatten(0, (heads, -1)).split(list(sizes), dim=1)
        return [piece.flatten(0, 1) for piece in pieces]

    def save(tensors: Tensors) -> Tensors:
        pieces = [tensor.unflatten(0, (heads, -1)) for tensor in tensors]
        return [torch.cat(pieces, dim=1).flatten(0, 1)]

    return Translation((theirs,), tuple(ours), load, save, moves_rows=True)


def stacked(theirs: str, ours: str, count: int) -> Translation:
    """`count` tensors there, `{}` standing for their numbers, one behind another here."""

    def load(tensors: Tensors) -> Tensors:
        return [torch.stack(list(tensors))]

    def save(tensors: Tensors) -> Tensors:
        (together,) = tensors
        return together.unbind()

    each = tuple(theirs.format(number) for number in range(count))
    return Translation(each, (ours,), load, save)


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

    return Translation((theirs,), (ours,), load, save, moves_rows=True)
