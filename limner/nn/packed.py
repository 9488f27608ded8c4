"""Layers over weights in the form the kernels read, for networks that are used and not trained.

B batch, T time, D inputs, F outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from limner import kernels
from limner.kernels import PackedFloats, PackedWeight
from limner.nn import scaled

#: What the numbers of weights become: those that the file holds where kernels read its format
#: ("stored"), floats of the same value ("float"), or 8 or 4 bits in groups of 32.
Weights = Literal["stored", "float", "int8", "int4"]

Packed = PackedWeight | PackedFloats


class PackedLinear(nn.Module):
    """A linear layer; its `weight` is packed, once it is there, and its bias a tensor.

    Kernels round activations to 8 bits for weights of few bits. With `activation_bits` 16, what
    that leaves over is multiplied too: the answers are those of float activations, for twice the
    arithmetic but hardly more reading.
    """

    weight: Packed | None
    activation_bits: Literal[8, 16] = 8

    def __init__(
        self, in_features: int, out_features: int, bias: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.shape = (out_features, in_features)
        self.bias, self.weight = bias, None

    def forward(self, hidden: Tensor, both: Tensor | None = None) -> Tensor:
        """Map `hidden` (..., D) to (..., F), in float32.

        `both` (2M, D) are its rows with what their rounding leaves over, if that is known already.
        """
        assert self.weight is not None
        if isinstance(self.weight, PackedFloats):
            return kernels.linear_float(hidden, self.weight, self.bias)
        if self.activation_bits == 8:
            return kernels.linear_quantized(hidden, self.weight, self.bias)
        both = with_remainder(hidden) if both is None else both
        half = None if self.bias is None else self.bias / 2  # each of both gets it
        rounded, rest = kernels.linear_quantized(both, self.weight, half).chunk(2)
        return kernels.add(rounded, rest).view(*hidden.shape[:-1], self.out_features)

    @property
    def reads_both(self) -> bool:
        """Whether it multiplies what rounding leaves over too."""
        return isinstance(self.weight, PackedWeight) and self.activation_bits == 16

    def extra_repr(self) -> str:
        """Sizes and bits, for print(network)."""
        return f"{self.in_features}, {self.out_features}, {describe(self.weight)}"


def with_remainder(hidden: Tensor) -> Tensor:
    """`hidden` (..., D) as rows, and below them what rounding them leaves over, (2M, D)."""
    return kernels.with_remainder(hidden.reshape(-1, hidden.shape[-1]))


def together(layers: Sequence[nn.Module], hidden: Tensor) -> list[Tensor]:
    """What each of `layers` makes of `hidden` (..., D), their common work done once."""
    if not any(isinstance(layer, PackedLinear) and layer.reads_both for layer in layers):
        return [layer(hidden) for layer in layers]
    both = with_remainder(hidden)
    return [
        layer(hidden, both) if isinstance(layer, PackedLinear) else layer(hidden)
        for layer in layers
    ]


class PackedEmbedding(nn.Module):
    """Token vectors; the packed `weight` may be that of the head too."""

    weight: Packed | None

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.shape = (num_embeddings, embedding_dim)
        self.weight = None

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors (B, T, D) of `tokens` (B, T), in float32."""
        if isinstance(self.weight, PackedWeight):
            return kernels.embed(tokens, self.weight)
        assert self.weight is not None
        return self.weight.rows(tokens)

    def extra_repr(self) -> str:
        """Sizes and bits, for print(network)."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {describe(self.weight)}"


def describe(weight: Packed | None) -> str:
    """How a packed weight keeps its numbers."""
    if weight is None:
        return "no weight yet"
    if isinstance(weight, PackedFloats):
        return str(weight.values.dtype).removeprefix("torch.")
    return f"{weight.bits} bits" + (" and a minimum" if weight.has_minimum else "")


def replace_layers(network: nn.Module) -> None:
    """Put packed layers, without weights as yet, in place of linear layers and token vectors.

    Matrices that are not in a linear layer (experts, recurrences) stay as they are, and so do those
    that a module reads itself, which it names in `reads_weights`.
    """
    spared = read_elsewhere(network)
    for name, module in list(network.named_modules()):
        if type(module) is nn.Linear and name not in spared:
            empty = PackedLinear(module.in_features, module.out_features, module.bias)
            network.set_submodule(name, empty)
        elif type(module) is nn.Embedding and name.endswith("embedding.tokens"):
            table = PackedEmbedding(module.num_embeddings, module.embedding_dim)
            network.set_submodule(name, table)


def read_elsewhere(network: nn.Module) -> set[str]:
    """Names of the layers whose weights another module reads itself."""
    return {
        f"{name}.{child}"
        for name, module in network.named_modules()
        for child in getattr(module, "reads_weights", ())
    }


def set_activation_bits(network: nn.Module, bits: Literal[8, 16]) -> None:
    """Let packed layers of few bits count activations with 8 or 16 bits."""
    for module in network.modules():
        if isinstance(module, PackedLinear):
            module.activation_bits = bits


def pack_layers(network: nn.Module, weights: Weights) -> None:
    """Pack the linear layers and token vectors of a `network` that has its weights.

    Layers that shared a matrix share the packed one.
    """
    plain: dict[str, Tensor] = dict(network.named_parameters(remove_duplicate=False))
    replace_layers(network)
    packed: dict[int, Packed] = {}
    for name, module in network.named_modules():
        if isinstance(module, PackedLinear | PackedEmbedding):
            weight = plain[f"{name}.weight"]
            if id(weight) not in packed:
                packed[id(weight)] = pack(weight.detach(), weights, is_vocabulary(name))
            module.weight = packed[id(weight)]


def is_vocabulary(name: str) -> bool:
    """Whether a layer's matrix has a row for each token."""
    return name.startswith(("embedding.tokens", "head.output"))


def pack(weight: Tensor, weights: Weights, for_vocabulary: bool = False) -> Packed:
    """`weight` (F, D) in the form asked for; float where 8 or 4 bits cannot be (D % 32).

    With 4 bits the vocabulary's matrix gets 8, as the field does: it decides the token.
    """
    if weights in ("stored", "float") or weight.shape[1] % kernels.GROUP:
        if weight.dtype not in (torch.float32, torch.bfloat16):
            weight = weight.float()
        return kernels.pack_floats(weight)
    if weights == "int8" or for_vocabulary:
        return kernels.quantize(weight, 8)
    return kernels.quantize(weight, 4, minimum=True)


def packed_weights(network: nn.Module) -> Iterator[tuple[str, Packed | None]]:
    """Every packed weight with its name, those used in two places under both."""
    for name, module in network.named_modules():
        if isinstance(module, PackedLinear | PackedEmbedding):
            yield f"{name}.weight", module.weight


def weight_bytes(network: nn.Module) -> int:
    """Memory of all weights, packed or not; those used in two places count once."""
    packed = {id(weight): weight.nbytes for _, weight in packed_weights(network) if weight}
    rows = sum(weight.nbytes for _, weight in scaled.scaled_weights(network))
    return sum(packed.values()) + rows + sum(each.nbytes for each in network.parameters())


def number_format(network: nn.Module) -> str:
    """What most of a network's weights are kept in: "float32", "4 bits and a minimum" ..."""
    sizes: dict[str, int] = {}
    for _, weight in packed_weights(network):
        sizes[describe(weight)] = sizes.get(describe(weight), 0) + (weight.nbytes if weight else 0)
    for _, rows in scaled.scaled_weights(network):
        sizes[scaled.describe(rows)] = sizes.get(scaled.describe(rows), 0) + rows.nbytes
    for parameter in network.parameters():
        name = str(parameter.dtype).removeprefix("torch.")
        sizes[name] = sizes.get(name, 0) + parameter.nbytes
    return max(sizes, key=lambda name: sizes[name], default="nothing")
