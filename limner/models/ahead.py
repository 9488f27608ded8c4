"""Multi-token prediction: a network that predicts further than the next token (DeepSeek-V3, 2.2).

B batch, T time, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limner.models.block import Block, BlockConfig
from limner.nn.cache import CacheShape
from limner.nn.carried import CarriedShape
from limner.nn.norms import NormConfig
from limner.nn.rotary import Positions
from limner.nn.state import State


class Predictor(nn.Module):
    """One block that looks one token further than what comes before it.

    It joins what is known so far of each place with the token that follows it, so predictors in a
    row keep the causal chain. Embedding and head are the network's own.
    """

    def __init__(self, width: int, depth: int, block: BlockConfig, norm: NormConfig) -> None:
        super().__init__()
        self.token_norm = norm.build(width)
        self.hidden_norm = norm.build(width)
        self.join = nn.Linear(2 * width, width, bias=False)
        self.block = Block(width, depth, block)
        self.norm = norm.build(width)

    def forward(
        self, hidden: Tensor, following: Tensor, positions: Positions, state: State
    ) -> Tensor:
        """Hidden vectors (B, T, D) that the head makes into logits of one token further.

        `hidden` (B, T, D) comes from the network (after its norm) or the predictor before;
        `following` (B, T, D) are the vectors of the tokens that `hidden` predicts.
        """
        joined = torch.cat((self.token_norm(following), self.hidden_norm(hidden)), -1)
        return self.norm(self.block(self.join(joined), positions, state))

    @property
    def cache_shape(self) -> CacheShape | CarriedShape:
        """What a cache keeps of each token."""
        return self.block.cache_shape
