"""Heads: what is read off the hidden vectors.

B batch, T time, D width, V vocabulary, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from limner import kernels
from limner.kernels.activations import ACTIVATIONS, Activation
from limner.nn.embedding import EmbeddingConfig
from limner.nn.norms import NormConfig


class HeadConfig(Protocol):
    """Settings that can make a head for a stream of some width."""

    def build(self, width: int, embedding: EmbeddingConfig) -> nn.Module:
        """Make the head."""
        ...


@dataclass(frozen=True)
class LanguageHeadConfig:
    """Scores of every token: an optional bent and normalised layer, then the vocabulary.

    With `activation` and `norm` it is BERT's masked head. `tied` uses the token vectors.
    """

    tied: bool = True
    bias: bool = False
    activation: Activation | None = None
    norm: NormConfig | None = None
    scale: float = 1.0
    softcap: float | None = None

    def build(self, width: int, embedding: EmbeddingConfig) -> LanguageHead:
        """Make the head."""
        return LanguageHead(width, embedding, self)


class LanguageHead(nn.Module):
    """Logits over the vocabulary."""

    def __init__(self, width: int, embedding: EmbeddingConfig, config: LanguageHeadConfig) -> None:
        super().__init__()
        self.config = config
        inner = (embedding.width or width) if config.activation else width
        self.dense = nn.Linear(width, inner) if config.activation else None
        self.activation = ACTIVATIONS[config.activation] if config.activation else None
        self.norm = config.norm.build(inner) if config.norm else None
        self.output = nn.Linear(inner, embedding.vocabulary, config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (B, T, V) of `hidden` (B, T, D)."""
        if self.dense is not None and self.activation is not None:
            hidden = self.activation(self.dense(hidden))
        logits: Tensor = self.output(hidden if self.norm is None else self.norm(hidden))
        scale, softcap = self.config.scale, self.config.softcap
        if scale == 1.0 and softcap is None:
            return logits
        return kernels.scale(logits, scale, softcap)


@dataclass(frozen=True)
class ClassifierConfig:
    """Scores of some labels, read off one token of each text or each token.

    `of` "first" serves BERT's next sentence, sentence classes and multiple choice (one label, a
    text a choice), "last" a reward (one label), "each" token classes, extractive questions (two
    labels: start and end), replaced tokens and values (one label). With `activation` a dense layer
    comes first; `labels` None stops after it (a pooler).
    """

    labels: int | None
    of: Literal["first", "last", "each"] = "first"
    activation: Activation | None = None
    bias: bool = True

    def build(self, width: int, embedding: EmbeddingConfig) -> Classifier:
        """Make the head."""
        return Classifier(width, self)


class Classifier(nn.Module):
    """Label scores."""

    def __init__(self, width: int, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.dense = nn.Linear(width, width) if config.activation else None
        self.activation = ACTIVATIONS[config.activation] if config.activation else None
        self.output = nn.Linear(width, config.labels, config.bias) if config.labels else None

    def forward(self, hidden: Tensor, last: Tensor | None = None) -> Tensor:
        """Scores (B, L), or (B, T, L) of each token, of `hidden` (B, T, D).

        `last` (B,) is the place of each text's last token that is no padding; the last column if
        not given.
        """
        if self.config.of == "first":
            hidden = hidden[:, 0]
        elif self.config.of == "last":
            rows = torch.arange(len(hidden), device=hidden.device)
            hidden = hidden[:, -1] if last is None else hidden[rows, last]
        if self.dense is not None and self.activation is not None:
            hidden = self.activation(self.dense(hidden))
        return hidden if self.output is None else self.output(hidden)
