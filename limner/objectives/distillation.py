"""Distillation: learn a larger model's probabilities (Hinton et al. 2015).

N places, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.data.batches import Batch
from limner.models.decoder import Decoder
from limner.objectives.cross_entropy import cross_entropy, sum_in_chunks, weighted_sum
from limner.objectives.loss import Loss, Sum
from limner.objectives.next_token import documents_of


class Distillation:
    """Match a teacher's probabilities of the next token, softened by a temperature.

    The loss of a place is share x T^2 x KL(teacher || network), both at temperature T, plus
    (1 - share) x cross-entropy of the token that really follows; T^2 keeps the gradient's size.

    Raises ValueError for a temperature or share out of range.
    """

    def __init__(self, teacher: Decoder, temperature: float = 2.0, share: float = 0.5) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        if not 0 <= share <= 1:
            raise ValueError(f"share must be from 0 to 1, not {share}")
        self.teacher, self.temperature, self.share = teacher, temperature, share
        teacher.requires_grad_(False)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Both losses; ValueError if teacher and network have other vocabularies."""
        assert isinstance(network, Decoder)
        self._require_same_vocabulary(network)
        with torch.no_grad():
            taught = self.teacher(batch.tokens, state=documents_of(batch))  # (B, T, D')
        hidden = network(batch.tokens, state=documents_of(batch))  # (B, T, D)
        soft = self.divergence(network, hidden, taught, batch.weights)
        hard = cross_entropy(network.head, hidden, batch.targets, batch.weights)
        total = self.share * soft + (1 - self.share) * hard.total
        metrics = {"soft": Sum(soft, hard.weight), "hard": Sum(hard.total, hard.weight)}
        return Loss(total, hard.weight, metrics)

    def divergence(
        self, network: Decoder, hidden: Tensor, taught: Tensor, weights: Tensor
    ) -> Tensor:
        """The sum over places of weight x T^2 x KL(teacher || network)."""
        kept = weights.flatten().nonzero().squeeze(1)
        hidden, taught = hidden.flatten(0, -2)[kept], taught.flatten(0, -2)[kept]  # (N, D)
        kept_weights = weights.flatten()[kept]

        def score(part: Tensor, places: slice) -> Tensor:
            own = (network.head(part).float() / self.temperature).log_softmax(-1)  # (n, V)
            with torch.no_grad():
                aim = (self.teacher.head(taught[places]).float() / self.temperature).log_softmax(-1)
            each = functional.kl_div(own, aim, reduction="none", log_target=True).sum(-1)
            return self.temperature**2 * weighted_sum(each, kept_weights[places])

        return sum_in_chunks(score, hidden, network.head)

    def _require_same_vocabulary(self, network: Decoder) -> None:
        own, theirs = network.config.vocabulary, self.teacher.config.vocabulary
        if own != theirs:
            raise ValueError(
                f"the teacher has {theirs} tokens and the network {own}: "
                "distillation needs both to have the same tokenizer"
            )
