"""A built network to fewer bits, block by block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from limner import kernels
from limner.checkpoints.quantized import Grid, GroupedWeight, OutlierWeight
from limner.models.block import Block
from limner.models.network import Network
from limner.nn.mixture import Router
from limner.nn.packed import PackedLinear
from limner.nn.scaled import ScaledLinear, ScaledWeight
from limner.quantization.awq import round_clipped, search_scales
from limner.quantization.folding import find_fold, fold_scales
from limner.quantization.gptq import gptq
from limner.quantization.layerwise import Inputs, Seen, Walk, watch
from limner.quantization.outliers import THRESHOLD, OutlierLinear, split_outliers
from limner.quantization.rounding import round_to_nearest, round_whole_rows

log = logging.getLogger(__name__)

Weight = GroupedWeight | OutlierWeight | ScaledWeight
Weights = dict[str, Weight]
#: Called with (blocks done, blocks in all).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Method:
    """How a network is rounded.

    "rtn" rounds to nearest and "fp8" to floats of 8 bits (with `FLOAT8_GRID`), which need no texts;
    "gptq", "awq" and "outliers" look at what layers meet. `by_weight` lets GPTQ take inputs in the
    order of their size; inputs of at least `threshold` are outliers.
    """

    name: Literal["rtn", "fp8", "gptq", "awq", "outliers"]
    grid: Grid
    by_weight: bool = True
    threshold: float = THRESHOLD

    @property
    def needs_texts(self) -> bool:
        """Whether it is calibrated."""
        return self.name not in ("rtn", "fp8")


def layers_to_quantize(network: nn.Module) -> list[str]:
    """Names of the linear layers within blocks whose inputs can be cut into groups of 32.

    Routers stay as they are, since a rounding error could send a token elsewhere, and so do layers
    whose weights are read otherwise than by calling them.
    """
    names = []
    for place, block in network.named_modules():
        if isinstance(block, Block):
            names += [f"{place}.{name}" for name in _layers_of(block)]
    return names


def _layers_of(block: nn.Module) -> Iterator[str]:
    for owner, module in block.named_modules():
        read = getattr(module, "reads_weights", ())
        if isinstance(module, Router):
            continue
        for name, child in module.named_children():
            whole = f"{owner}.{name}".removeprefix(".")
            if type(child) is not nn.Linear or name in read:
                continue
            if child.in_features % kernels.GROUP:
                log.info("%s keeps its floats: %d inputs are no groups", whole, child.in_features)
                continue
            yield whole


def quantize_network(
    network: Network,
    method: Method,
    rows: Sequence[Tensor] = (),
    progress: Progress | None = None,
) -> Weights:
    """Round the linear layers within the blocks of `network`, which then computes with them.

    Args:
        network: in float; changed.
        method: how.
        rows: token ids (1, T) each, which the method is calibrated on.
        progress: called with (blocks done, blocks in all).

    Returns:
        The rounded matrices by the names of their layers.

    Raises:
        ValueError: groups do not divide a layer's inputs, or the network cannot be calibrated.
    """
    names = layers_to_quantize(network)
    if not names:
        raise ValueError(f"a network of the family '{network.config.family}' has no layer to round")
    for name in names:
        method.grid.group_of(linear_at(network, name).in_features)
    if not method.needs_texts:
        return _round_everything(network, method, names, progress)
    walk, weights = Walk(network, rows), Weights()
    for number, (place, block) in enumerate(walk, start=1):
        met = _Met(block, watch(block, walk.inputs), walk.inputs[0], set(_layers_of(block)))
        for name, weight in _round_block(met, method).items():
            weights[f"{place}.{name}"] = weight
            put(network, f"{place}.{name}", weight)
        if progress is not None:
            progress(number, len(network.config.blocks))
    return weights


def _round_everything(
    network: Network, method: Method, names: list[str], progress: Progress | None
) -> Weights:
    weights = Weights()
    for number, name in enumerate(names, start=1):
        matrix = linear_at(network, name).weight
        floating = method.grid.floating
        weights[name] = (
            round_whole_rows(matrix) if floating else round_to_nearest(matrix, method.grid)
        )
        put(network, name, weights[name])
        if progress is not None:
            progress(number, len(names))
    return weights


@dataclass(frozen=True)
class _Met:
    """A block, what its layers met, the inputs of its first pass, and which layers to round."""

    block: nn.Module
    seen: list[Seen]
    inputs: Inputs
    names: set[str]

    def layers(self) -> Iterator[tuple[str, Tensor, Seen]]:
        """Each layer to round that was called, its weights and what it met."""
        for seen in self.seen:
            for name in seen.layers:
                if name in self.names:
                    yield name, linear_at(self.block, name).weight, seen


def _round_block(met: _Met, method: Method) -> Weights:
    """Round a block's layers by what they met; those never called, to nearest."""
    weights = METHODS[method.name](met, method)
    for name in sorted(met.names - weights.keys()):
        log.info("%s was not called by the calibration texts: rounded to nearest", name)
        weights[name] = round_to_nearest(linear_at(met.block, name).weight, method.grid)
    return weights


def _gptq_block(met: _Met, method: Method) -> Weights:
    weights = Weights()
    for seen in met.seen:
        names = [name for name in seen.layers if name in met.names]
        if not names:
            continue
        # Rows do not touch one another: layers on one input are rounded as one matrix.
        matrices = [linear_at(met.block, name).weight for name in names]
        together = gptq(torch.cat(matrices), seen.hessian, method.grid, by_weight=method.by_weight)
        sizes = [len(matrix) for matrix in matrices]
        for name, numbers in zip(names, torch.arange(sum(sizes)).split(sizes), strict=True):
            weights[name] = together.rows(numbers)
    return weights


def _awq_block(met: _Met, method: Method) -> Weights:
    for seen in met.seen:
        _rescale(met, seen, method.grid)
    return {
        name: round_clipped(matrix, seen.hessian.diagonal(), method.grid)
        for name, matrix, seen in met.layers()
    }


def _rescale(met: _Met, seen: Seen, grid: Grid) -> None:
    """Scale the columns of the layers that share an input, if what makes it can undo that."""
    fold = find_fold(met.block, seen)
    matrices = [linear_at(met.block, name).weight for name in seen.layers if name in met.names]
    if fold is None or not matrices:
        return
    sizes = fold.together(seen.magnitude / seen.count)
    scale = search_scales(matrices, seen.hessian, sizes, grid)
    if fold_scales(met.block, fold, seen.layers, scale, met.inputs):
        seen.hessian /= scale[:, None] * scale
    else:
        log.info("%s: something else reads their input, no scales", ", ".join(seen.layers))


def _outlier_block(met: _Met, method: Method) -> Weights:
    return {
        name: split_outliers(matrix, seen.peak, method.grid, method.threshold)
        for name, matrix, seen in met.layers()
    }


METHODS = {"gptq": _gptq_block, "awq": _awq_block, "outliers": _outlier_block}


def linear_at(module: nn.Module, name: str) -> nn.Linear:
    """The linear layer of this name."""
    linear = module.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    return linear


@torch.no_grad()
def put(network: nn.Module, name: str, weight: Weight) -> None:
    """Let the linear layer `name` compute with `weight`."""
    linear = linear_at(network, name)
    if isinstance(weight, OutlierWeight):
        network.set_submodule(name, OutlierLinear(weight, linear.bias))
        return
    if isinstance(weight, ScaledWeight):
        network.set_submodule(name, ScaledLinear(weight, linear.bias))
        return
    packed = weight.packed()
    if packed is None or linear.weight.device.type != "cpu":
        linear.weight.data = weight.dequantize().to(linear.weight)  # not in the file's memory
        return
    layer = PackedLinear(linear.in_features, linear.out_features, linear.bias)
    layer.weight = packed
    network.set_submodule(name, layer)
