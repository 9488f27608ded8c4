"""Next-token prediction, the objective of language models (Bengio et al. 2003).

B batch, T time, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from limner.data.batches import Batch
from limner.models.decoder import Decoder
from limner.nn.balance import balance_loss, watch_routing
from limner.nn.state import Documents
from limner.objectives.cross_entropy import cross_entropy
from limner.objectives.loss import Loss, Sum


def documents_of(batch: Batch) -> Documents:
    """The state in which no document of a batch sees another.

    A causal network needs none where each row holds one document, since what pads it comes after.
    """
    return Documents(batch.documents if batch.mixed else None)


@dataclass(frozen=True)
class NextToken:
    """Predict each token, EOS included, from those before it in its document.

    `balance` is the weight of the auxiliary loss that evens out the load of experts (Fedus et al.
    2022), for mixtures of experts.
    """

    balance: float = 0.0

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Cross-entropy of the tokens that follow."""
        assert isinstance(network, Decoder)
        with watch_routing(network) as record:
            hidden = network(batch.tokens, state=documents_of(batch))  # (B, T, D)
        loss = cross_entropy(network.head, hidden, batch.targets, batch.weights)
        if not self.balance:
            return loss
        return add_balance(loss, balance_loss(record, batch.mask.float()), self.balance)


def add_balance(loss: Loss, uneven: Tensor, weight: float) -> Loss:
    """The loss with an average that is the same for all its places added to each."""
    metrics = {**loss.metrics, "balance": Sum(uneven * loss.weight, loss.weight)}
    return Loss(loss.total + weight * uneven * loss.weight, loss.weight, metrics)
