"""LLM.int8() (Dettmers et al. 2022): 8 bits, but for a few inputs far larger than the others.

Those inputs would leave a step too coarse for all others. Which they are is found from calibration
texts and then fixed, so that a token's result depends on no other token.

N outputs, K inputs, C columns kept in float.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from limner import kernels
from limner.checkpoints.quantized import Grid, OutlierWeight
from limner.kernels import PackedWeight
from limner.quantization.rounding import round_to_nearest

#: An input that was ever as large as this is an outlier (section 3.2).
THRESHOLD = 6.0


def split_outliers(
    matrix: Tensor, peak: Tensor, grid: Grid, threshold: float = THRESHOLD
) -> OutlierWeight:
    """`matrix` (N, K) in 8 bits, in half precision for inputs whose `peak` (K,) is `threshold`.

    Raises ValueError for a grid of other than 8 bits, or as `round_to_nearest` does.
    """
    if grid.bits != 8 or not grid.symmetric:
        raise ValueError("method=outliers rounds to 8 bits, symmetric: say bits=8")
    columns = (peak >= threshold).nonzero().squeeze(1)
    rest = matrix.detach().float().index_fill(1, columns, 0.0)
    return OutlierWeight(round_to_nearest(rest, grid), columns, matrix[:, columns].half())


class OutlierLinear(nn.Module):
    """A linear layer of 8 bits whose largest inputs meet float weights.

    Raises ValueError if the kernels have no groups such as its weight's.
    """

    columns: Tensor
    values: Tensor

    def __init__(self, weight: OutlierWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        packed = weight.rest.packed()
        if packed is None:
            raise ValueError(f"groups of {weight.rest.group} inputs are no multiple of 32")
        self.rest: PackedWeight = packed
        self.in_features, self.out_features = packed.inputs, packed.outputs
        self.register_buffer("columns", weight.columns)
        self.register_buffer("values", weight.values.float())
        self.bias = bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Map `hidden` (..., K) to (..., N)."""
        large = functional.linear(hidden[..., self.columns], self.values, self.bias)
        small = hidden.index_fill(-1, self.columns, 0.0)
        return kernels.linear_quantized(small, self.rest) + large

    def extra_repr(self) -> str:
        """Sizes, for print(network)."""
        return f"{self.rest.inputs}, {self.rest.outputs}, {len(self.columns)} columns in float"
