"""Denoising: BART's objective (Lewis et al. 2020), with its five noises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy
from torch import nn

from limner.config import nearest
from limner.data import noise
from limner.data.batches import Batch
from limner.data.corpus import Integers
from limner.objectives.loss import Loss
from limner.objectives.sequence_to_sequence import texts, translation_loss
from limner.objectives.vocabulary import mask_token, sentence_ends, special_tokens
from limner.tokenizers import Tokenizer

Noise = Literal["permute", "rotate", "infill", "delete", "mask"]


class Denoising:
    """Read a damaged text, write the whole one.

    Args:
        tokenizer: says which token is the mask and which end sentences.
        noises: applied in this order. "permute" shuffles sentences, "rotate" begins the text at
            another token, "infill" puts one mask for spans of Poisson length, "delete" leaves
            tokens out, "mask" puts a mask for single ones. The paper's choice is the default.
        share: of the tokens that infilling takes; masking and deletion take half of that.
        mean_length: of the spans that infilling takes.

    Raises ValueError if the tokenizer has no mask token, or for an unknown noise.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        noises: Sequence[Noise] = ("permute", "infill"),
        share: float = 0.3,
        mean_length: float = 3.0,
    ) -> None:
        for name in noises:
            if name not in get_args(Noise):
                raise ValueError(f"unknown noise '{name}'{nearest(name, get_args(Noise))}")
        self.noises, self.share, self.mean_length = tuple(noises), share, mean_length
        self.mask, self.special = mask_token(tokenizer), special_tokens(tokenizer)
        self.ends = numpy.array(sorted(sentence_ends(tokenizer)), numpy.int64)

    def loss(self, network: nn.Module, batch: Batch) -> Loss:
        """Cross-entropy of the whole texts."""
        whole = list(texts(batch, self.special))
        damaged = [
            numpy.concatenate([text.before, self.damage(text.body, text.seed), text.after])
            for text in whole
        ]
        targets = [numpy.concatenate([text.before, text.body, text.after]) for text in whole]
        return translation_loss(network, damaged, targets)

    def damage(self, tokens: Integers, seed: int) -> Integers:
        """A text with all the noises on it, one after another."""
        random = numpy.random.default_rng(seed)
        for name in self.noises:
            tokens = self._apply(name, tokens, random)
        return tokens

    def _apply(self, name: Noise, tokens: Integers, random: noise.Random) -> Integers:
        some = random.random(len(tokens)) < self.share / 2
        if name == "mask":
            return numpy.where(some, self.mask, tokens)
        if name == "delete":
            return noise.delete_tokens(tokens, some)
        if name == "infill":
            spans = noise.choose_infilling(len(tokens), random, self.share, self.mean_length)
            return noise.infill(tokens, spans, self.mask)
        if name == "rotate":
            return noise.rotate(tokens, int(random.integers(max(len(tokens), 1))))
        ends = self._sentence_ends(tokens)
        return noise.permute_sentences(tokens, ends, random.permutation(len(ends)).tolist())

    def _sentence_ends(self, tokens: Integers) -> list[int]:
        """Where sentences end; what stands behind the last mark is one too."""
        ends: list[int] = (numpy.flatnonzero(numpy.isin(tokens, self.ends)) + 1).tolist()
        return ends if ends[-1:] == [len(tokens)] else [*ends, len(tokens)]
