"""Multi-token prediction: also the tokens after the next (DeepSeek-V3, 2.2; Gloeckle et al. 2024).

B batch, T time, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limner.data.batches import Batch
from limner.models.decoder import Decoder
from limner.objectives.cross_entropy import cross_entropy
from limner.objectives.loss import Loss, Sum
from limner.objectives.next_token import documents_of


@dataclass(frozen=True)
class TokensAhead:
    """Predict the next token, and with each of the network's predictors one token further.

    `weight` is that of the further tokens together. The loss is divided by the count of next tokens
    alone, as in the paper.
    """

    weight: float = 0.3

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Cross-entropies of all; ValueError if the network has no predictors."""
        assert isinstance(network, Decoder)
        if not len(network.predictors):
            raise ValueError(
                f"this {network.config.family} model has no predictors of further tokens: "
                "train it for the next token, or give its config predictors"
            )
        hidden = network(batch.tokens, state=documents_of(batch))  # (B, T, D)
        loss = cross_entropy(network.head, hidden, batch.targets, batch.weights)
        metrics = {"next": Sum(loss.total, loss.weight)}
        targets, weights, total = batch.targets, batch.weights, loss.total
        share = self.weight / len(network.predictors)
        for depth in range(len(network.predictors)):
            hidden = network.ahead(hidden, targets, depth, documents_of(batch))
            targets, weights = following(targets), weights * following(batch.weights, depth + 1)
            further = cross_entropy(network.head, hidden, targets, weights)
            metrics[f"ahead {depth + 2}"] = Sum(further.total, further.weight)
            total = total + share * further.total
        return Loss(total, loss.weight, metrics)


def following(values: Tensor, steps: int = 1) -> Tensor:
    """What stands `steps` places later, 0 past the end, (B, T)."""
    later = torch.zeros_like(values)
    later[:, : values.shape[1] - steps] = values[:, steps:]
    return later
