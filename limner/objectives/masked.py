"""Masked tokens: BERT's objective (Devlin et al. 2019), masked anew each time (Liu et al. 2019).

B batch, T time, D width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy
import torch
from torch import Tensor, nn

from limner.data.batches import Batch
from limner.data.corpus import Integers
from limner.data.noise import Booleans, choose_masking, mask_tokens
from limner.models.encoder import Encoder
from limner.nn.state import Documents
from limner.objectives.cross_entropy import cross_entropy
from limner.objectives.loss import Loss
from limner.objectives.vocabulary import mask_token, ordinary_tokens, special_tokens
from limner.tokenizers import Tokenizer


class Masked(NamedTuple):
    """A batch with some tokens hidden: what is read (B, T), and where to predict (B, T) bool."""

    tokens: Tensor
    chosen: Tensor


class Masker:
    """Hides `share` of the tokens of each row: 80% masked, 10% another token, 10% as they are.

    Never a special token or padding, always at least one if any may be. What is hidden depends on
    the row's seed alone.
    """

    def __init__(self, tokenizer: Tokenizer, share: float = 0.15) -> None:
        if not 0 < share < 1:
            raise ValueError(f"the share of masked tokens must be between 0 and 1, not {share}")
        self.mask, self.share = mask_token(tokenizer), share
        self.ordinary, self.special = ordinary_tokens(tokenizer), special_tokens(tokenizer)

    def __call__(self, batch: Batch) -> Masked:
        """The batch with tokens hidden."""
        rows = batch.tokens.cpu().numpy(), batch.mask.cpu().numpy()
        noised = [self._row(*row) for row in zip(*rows, batch.seeds, strict=True)]
        tokens, chosen = (torch.from_numpy(numpy.stack(part)) for part in zip(*noised, strict=True))
        device = batch.tokens.device
        return Masked(tokens.to(device), chosen.to(device))

    def _row(self, tokens: Integers, mask: Booleans, seed: int) -> tuple[Integers, Booleans]:
        allowed = mask & ~numpy.isin(tokens, self.special)
        random = numpy.random.default_rng(seed)
        masking = choose_masking(allowed, self.ordinary, self.mask, random, self.share)
        return mask_tokens(tokens, masking), masking.chosen


class MaskedTokens:
    """Guess hidden tokens from both sides; the network needs the head "masked".

    Raises ValueError if the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: Tokenizer, share: float = 0.15) -> None:
        self.masker = Masker(tokenizer, share)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Cross-entropy at the hidden places only."""
        assert isinstance(network, Encoder)
        masked = self.masker(batch)
        hidden = network(masked.tokens, state=Documents(batch.documents))  # (B, T, D)
        return cross_entropy(
            network.head("masked"), hidden, batch.tokens, masked.chosen.to(hidden.dtype)
        )
