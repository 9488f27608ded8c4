"""Replaced-token detection: ELECTRA's objective (Clark et al. 2020).

B batch, T time, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.data.batches import Batch
from limner.data.rows import noise_seed
from limner.models.encoder import Encoder
from limner.nn.state import Documents
from limner.objectives.loss import Loss, Sum
from limner.objectives.masked import Masked, Masker
from limner.tokenizers import Tokenizer


class ReplacedTokens(nn.Module):
    """Tell for each token whether a small generator put it there.

    The generator is a masked language model trained beside the network, which gets its guesses in
    place of the hidden tokens. The loss of a row is the generator's mean over the hidden tokens
    plus `weight` times the network's mean over all tokens, as in the authors' code.

    Args:
        generator: an encoder with the head "masked"; it shares the network's token vectors if
            `share_embeddings` and their widths agree.
        tokenizer: says which token is the mask.
        weight: of the network's loss; 50 in the paper.
        share: how many tokens are hidden.
    """

    def __init__(
        self, generator: Encoder, tokenizer: Tokenizer, weight: float = 50.0, share: float = 0.15
    ) -> None:
        super().__init__()
        self.generator, self.weight = generator, weight
        self.masker = Masker(tokenizer, share)

    def share_embeddings(self, network: Encoder) -> None:
        """Let the generator read with the network's token vectors, as the paper does.

        Raises ValueError if their shapes differ.
        """
        own, theirs = self.generator.embedding.tokens.weight, network.embedding.tokens.weight
        if own.shape != theirs.shape:
            raise ValueError(
                f"token vectors of shape {tuple(own.shape)} cannot be shared with those of shape "
                f"{tuple(theirs.shape)}: give both the same embedding width"
            )
        self.generator.embedding.tokens.weight = theirs
        self.generator.tie()

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Both losses; the weight counts hidden tokens."""
        assert isinstance(network, Encoder)
        masked = self.masker(batch)
        guessed, guess_loss = self.guess(masked, batch)  # (B, T), (B, T)
        replaced = guessed != batch.tokens
        hidden = network(guessed, state=Documents(batch.documents))  # (B, T, D)
        scores = network.head("replaced")(hidden).squeeze(-1)  # (B, T)
        found = functional.binary_cross_entropy_with_logits(
            scores.float(), replaced.float(), reduction="none"
        )
        return self.joined(guess_loss, found * batch.mask, masked.chosen, batch.mask)

    def guess(self, masked: Masked, batch: Batch) -> tuple[Tensor, Tensor]:
        """The tokens with guesses drawn where they were hidden, and the loss of each guess."""
        hidden = self.generator(masked.tokens, state=Documents(batch.documents))
        logits = self.generator.head("masked")(hidden[masked.chosen]).float()  # (n, V)
        loss = torch.zeros_like(batch.weights)
        originals = batch.tokens[masked.chosen]
        each = functional.cross_entropy(logits, originals, reduction="none")
        loss = loss.masked_scatter(masked.chosen, each)
        guessed = batch.tokens.masked_scatter(
            masked.chosen, self._draw(logits.detach(), masked, batch)
        )
        return guessed, loss

    def _draw(self, logits: Tensor, masked: Masked, batch: Batch) -> Tensor:
        """A token from each distribution, by random numbers of its row alone."""
        counts = masked.chosen.sum(1).tolist()
        drawn = []
        for part, seed in zip(logits.softmax(-1).split(counts), batch.seeds, strict=True):
            generator = torch.Generator(part.device).manual_seed(noise_seed(seed, 1) >> 1)
            if len(part):
                drawn.append(torch.multinomial(part, 1, generator=generator).squeeze(1))
        return torch.cat([batch.tokens.new_zeros(0), *drawn])

    def joined(self, guesses: Tensor, found: Tensor, chosen: Tensor, mask: Tensor) -> Loss:
        """Row by row, so that it does not matter which rows share a batch."""
        hidden, tokens = chosen.sum(1), mask.sum(1)
        scale = self.weight * hidden / tokens.clamp(min=1)  # (B,)
        total = guesses.sum() + (scale * found.sum(1)).sum()
        metrics = {
            "generator": Sum(guesses.sum(), hidden.sum().float()),
            "discriminator": Sum(found.sum(), tokens.sum().float()),
        }
        return Loss(total, hidden.sum().float(), metrics)
