"""Contrastive pairs: CLIP's objective (Radford et al. 2021).

B pairs of an image and a text, b those of this process, T time, P width of the common space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.data.batches import Batch
from limner.data.images import ImageFiles
from limner.models.contrastive import Contrastive
from limner.objectives.loss import Gather, Loss, Sum

#: The paper keeps the learnt temperature from multiplying cosines by more than this.
LARGEST_SCALE = 100.0


class ContrastivePairs:
    """Tell which of the texts of a batch is whose: each row's image by its text and the other way.

    The loss of a pair is the mean of two cross-entropies over the batch, so it depends on the pairs
    that share the batch, as no other objective does. Where processes share the rows of a step, each
    compares its own with everyone's, so that the loss is still that of the whole step.

    Args:
        images: the image of each document, by the document's number.
    """

    def __init__(self, images: ImageFiles) -> None:
        self.images = images

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Both cross-entropies, and how often the right partner is the likeliest."""
        return self.shared_loss(network, batch, lambda rows: (rows, 0))

    def shared_loss(self, network: nn.Module, batch: Batch, gather: Gather) -> Loss:
        """What the pairs of `batch` add to the loss of those of all processes.

        `gather` gives the vectors of all and passes gradients back to where they come from.
        """
        assert isinstance(network, Contrastive)
        with torch.no_grad():
            network.scale.clamp_(max=math.log(LARGEST_SCALE))
        tokens = ended(batch, network.config.end)
        images = self.images.read(batch.documents[:, 0].tolist()).to(tokens.device)
        texts, pictures = network.embed_text(tokens, batch.mask.int()), network.embed_image(images)
        # Logits reach 100, which bfloat16 would round to halves.
        with torch.autocast(texts.device.type, enabled=False):
            texts = functional.normalize(texts.float(), dim=-1)  # (b, P)
            pictures = functional.normalize(pictures.float(), dim=-1)  # (b, P)
            all_texts, first = gather(texts)  # (B, P)
            all_pictures, _ = gather(pictures)
            scale = network.scale.exp()
            return pair_loss(scale * pictures @ all_texts.T, scale * texts @ all_pictures.T, first)


def ended(batch: Batch, end: int | None) -> Tensor:
    """The tokens (B, T), with `end` last in a row whose text was cut off."""
    if end is None:
        return batch.tokens
    last = batch.mask.sum(1, keepdim=True) - 1  # (B, 1)
    cut = ~((batch.tokens == end) & batch.mask).any(1, keepdim=True)
    ends = torch.where(cut, end, batch.tokens.gather(1, last))
    return batch.tokens.scatter(1, last, ends)


def pair_loss(of_images: Tensor, of_texts: Tensor, first: int = 0) -> Loss:
    """The loss of b pairs among B.

    Args:
        of_images: logits (b, B) of each of these images with each text.
        of_texts: logits (b, B) of each of these texts with each image.
        first: the place of the first of these pairs among all.
    """
    pairs = torch.arange(first, first + len(of_images), device=of_images.device)
    weight = of_images.new_tensor(float(len(pairs)), dtype=torch.float32)
    losses, metrics = [], {}
    for name, logits in (("text found", of_images.float()), ("image found", of_texts.float())):
        losses.append(functional.cross_entropy(logits, pairs, reduction="sum"))
        metrics[name] = Sum((logits.argmax(1) == pairs).sum().float(), weight)
    return Loss((losses[0] + losses[1]) / 2, weight, metrics)
