"""Contrastive pairs: CLIP's objective (Radford et al. 2021).

B pairs of an image and a text, T time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.data.batches import Batch
from limner.data.images import ImageFiles
from limner.models.contrastive import Contrastive
from limner.objectives.loss import Loss, Sum

#: The paper keeps the learnt temperature from multiplying cosines by more than this.
LARGEST_SCALE = 100.0


class ContrastivePairs:
    """Tell which of the texts of a batch is whose: each row's image by its text and the other way.

    The loss of a pair is the mean of two cross-entropies over the batch, so it depends on the pairs
    that share the batch, as no other objective does.

    Args:
        images: the image of each document, by the document's number.
    """

    def __init__(self, images: ImageFiles) -> None:
        self.images = images

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Both cross-entropies, and how often the right partner is the likeliest."""
        assert isinstance(network, Contrastive)
        with torch.no_grad():
            network.scale.clamp_(max=math.log(LARGEST_SCALE))
        tokens = ended(batch, network.config.end)
        images = self.images.read(batch.documents[:, 0].tolist()).to(tokens.device)
        return pair_loss(network(tokens, images, batch.mask.int()))


def ended(batch: Batch, end: int | None) -> Tensor:
    """The tokens (B, T), with `end` last in a row whose text was cut off."""
    if end is None:
        return batch.tokens
    last = batch.mask.sum(1, keepdim=True) - 1  # (B, 1)
    cut = ~((batch.tokens == end) & batch.mask).any(1, keepdim=True)
    ends = torch.where(cut, end, batch.tokens.gather(1, last))
    return batch.tokens.scatter(1, last, ends)


def pair_loss(logits: Tensor) -> Loss:
    """The loss of logits (B, B) of each image with each text, those of a pair on the diagonal."""
    pairs = torch.arange(len(logits), device=logits.device)
    logits = logits.float()
    of_image = functional.cross_entropy(logits, pairs, reduction="sum")
    of_text = functional.cross_entropy(logits.T, pairs, reduction="sum")
    weight = logits.new_tensor(len(logits))
    found = (logits.argmax(1) == pairs).sum().float(), (logits.argmax(0) == pairs).sum().float()
    metrics = {"text found": Sum(found[0], weight), "image found": Sum(found[1], weight)}
    return Loss((of_image + of_text) / 2, weight, metrics)
