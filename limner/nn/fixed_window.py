"""The fixed-window neural language model as a mixer (Bengio et al. 2003).

n texts, C tokens of each, B batch, T time, D width, K tokens seen, W width of the hidden layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limner.nn.carried import Carried, CarriedShape, zeros
from limner.nn.rotary import Positions
from limner.nn.state import State
from limner.nn.windows import windows, with_past


@dataclass(frozen=True)
class FixedWindowConfig:
    """The vectors of the last `tokens` tokens side by side, and one hidden layer of tanh.

    `direct` adds the paper's connections from the vectors past the hidden layer, of the stream's
    rank. Before the beginning of a text the vectors are zeros.
    """

    tokens: int
    hidden_width: int
    direct: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"a window of {self.tokens} tokens sees nothing: make it 1 or more")

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return FixedWindow(width, layer, self)


class FixedWindow(nn.Module):
    """output(tanh(hidden(window))) + direct(window)."""

    def __init__(self, width: int, layer: int, config: FixedWindowConfig) -> None:
        super().__init__()
        self.layer, self.config, self.width = layer, config, width
        seen = config.tokens * width
        self.hidden = nn.Linear(seen, config.hidden_width)
        self.output = nn.Linear(config.hidden_width, width, bias=False)
        self.direct = nn.Linear(seen, width, bias=False) if config.direct else None

    @property
    def cache_shape(self) -> CarriedShape:
        """The vectors of all tokens of the window but one."""
        return zeros((self.config.tokens - 1, self.width))

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Map each token's window of `hidden` (B, T, D) to (B, T, D)."""
        seen = state.scan(self, hidden)  # (B, T, K D)
        mixed: Tensor = self.output(torch.tanh(self.hidden(seen)))
        return mixed if self.direct is None else mixed + self.direct(seen)

    def recur(
        self, inputs: Tensor, carried: Carried, starts: Tensor | None
    ) -> tuple[Tensor, Carried]:
        """Windows (n, C, K D) of `inputs` (n, C, D); see `limner.nn.carried.Recurrence`."""
        joined, past = with_past(inputs, carried[0])
        return windows(joined, self.config.tokens, starts).flatten(-2), (past,)
