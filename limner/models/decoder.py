"""The decoder stack: language models that predict the next token.

B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limner.models.block import Block, BlockConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.norms import NormConfig
from limner.nn.rotary import Positions
from limner.nn.state import DenseCache, Documents, State


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder, part by part.

    `family` names the file in `families/` that reads and writes it; nothing else looks at it.
    `context` is the longest text it was made for. `tied` uses the token vectors as the head.
    """

    family: str
    width: int
    context: int
    embedding: EmbeddingConfig
    blocks: tuple[BlockConfig, ...]
    norm: NormConfig | None = None
    tied: bool = False
    head_bias: bool = False
    logit_scale: float = 1.0
    logit_softcap: float | None = None

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.embedding.vocabulary

    def build(self) -> Decoder:
        """Make the network, its weights not yet set."""
        return Decoder(self)


class LanguageHead(nn.Linear):
    """Scores of every token of the vocabulary."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config.width, config.vocabulary, config.head_bias)
        self.scale, self.softcap = config.logit_scale, config.logit_softcap

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits (B, T, V) of `hidden` (B, T, D)."""
        logits = super().forward(hidden)
        logits = logits if self.scale == 1.0 else logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


class Decoder(nn.Module):
    """Embedding, blocks, norm; a head beside them."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = config.embedding.build(config.width)
        self.blocks: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(config.width, layer, block) for layer, block in enumerate(config.blocks)
        )
        self.norm = config.norm.build(config.width) if config.norm else None
        self.head = LanguageHead(config)
        self.tie()

    def forward(
        self, tokens: Tensor, positions: Tensor | None = None, state: State | None = None
    ) -> Tensor:
        """Hidden vectors (B, T, D) of `tokens` (B, T).

        `state` is what they may see of other tokens, each row a text by itself if not given;
        `positions` (B, T) are the state's own if not given.
        """
        state = (Documents() if state is None else state).begin(tokens.shape[0], tokens.shape[1])
        if positions is None:
            positions = state.positions(tokens.shape[0], tokens.shape[1], tokens.device)
        hidden = self.embedding(tokens, positions)
        places = Positions(positions)
        for block in self.blocks:
            hidden = block(hidden, places, state)
        state.end()
        return hidden if self.norm is None else self.norm(hidden)

    def logits(self, tokens: Tensor, state: State | None = None) -> Tensor:
        """Logits (B, T, V) of `tokens` (B, T)."""
        return self.head(self(tokens, state=state))

    def new_cache(self, rows: int = 1, capacity: int | None = None) -> DenseCache:
        """An empty cache for `rows` texts of up to `capacity` tokens (the context if not given)."""
        shapes = [block.cache_shape for block in self.blocks]
        weight = self.embedding.tokens.weight
        capacity = self.config.context if capacity is None else capacity
        return DenseCache(shapes, rows, capacity, weight.dtype, weight.device)

    def tie(self) -> None:
        """Let the head use the token vectors, where the config says so."""
        if self.config.tied:
            self.head.weight = self.embedding.tokens.weight

    def initialise(self, deviation: float = 0.02, generator: torch.Generator | None = None) -> None:
        """Random weights as GPT-2 (Radford et al. 2019).

        Normal with `deviation`; the projections that write to the residual stream are divided by
        sqrt(2 x layers), so that the stream's size does not depend on depth; biases zero.
        """
        narrow = deviation / math.sqrt(2 * max(len(self.blocks), 1))
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                last = name.endswith((".mixer.output", ".feedforward.down"))
                nn.init.normal_(
                    module.weight, std=narrow if last else deviation, generator=generator
                )
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif hasattr(module, "reset"):
                module.reset()
