"""The encoder-decoder stack: a source text is read whole, a target is written token by token.

B batch, T target time, S source time, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from limner.models.block import BlockConfig
from limner.models.decoder import DecoderConfig
from limner.models.encoder import EncoderConfig
from limner.models.network import Network
from limner.nn.cache import DenseCache
from limner.nn.memory import Remembering
from limner.nn.state import Documents, State


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """An encoder, a decoder whose blocks have a `cross` mixer, and what they share.

    `shared_embedding` is one table of token vectors for both. `start` is the token that every
    target begins with, `padding` the one that fills up short texts.
    """

    family: str
    encoder: EncoderConfig
    decoder: DecoderConfig
    start: int
    padding: int
    shared_embedding: bool = True

    @property
    def width(self) -> int:
        """The width of the decoder's stream."""
        return self.decoder.width

    @property
    def context(self) -> int:
        """The longest target it was made for."""
        return self.decoder.context

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.decoder.vocabulary

    @property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The decoder's layers."""
        return self.decoder.blocks

    def build(self) -> EncoderDecoder:
        """Make the network, its weights not yet set."""
        return EncoderDecoder(self)


class EncoderDecoder(Network):
    """An encoder to read with and a decoder, its head included, to write with.

    Once `read` has made a state, it is called as a decoder is.
    """

    config: EncoderDecoderConfig

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.decoder = config.decoder.build()
        self.tie()

    def read(
        self, source: Tensor, mask: Tensor | None = None, state: State | None = None
    ) -> Remembering:
        """The state in which targets for `source` (B, S) are written.

        `mask` (B, S) is 0 at padding. `state` is what target tokens see of one another: a cache of
        `new_cache` to write token by token, whole targets at once if not given.
        """
        memory = self.encoder(source, state=None if mask is None else Documents(mask))
        return Remembering(Documents() if state is None else state, memory, mask)

    def forward(
        self, tokens: Tensor, positions: Tensor | None = None, state: State | None = None
    ) -> Tensor:
        """Hidden vectors (B, T, D) of target `tokens` (B, T) under a state that `read` made."""
        return self.decoder(tokens, positions, state)

    def logits(self, tokens: Tensor, state: State) -> Tensor:
        """Logits (B, T, V) of target `tokens` (B, T)."""
        return self.decoder.logits(tokens, state)

    def new_cache(self, rows: int = 1, capacity: int | None = None) -> DenseCache:
        """An empty cache for `rows` targets of up to `capacity` tokens."""
        return self.decoder.new_cache(rows, capacity)

    @property
    def head(self) -> nn.Module:
        """The decoder's language head."""
        return self.decoder.head

    def tie(self) -> None:
        """Let several places use one parameter, where the config says so."""
        if self.config.shared_embedding:
            self.encoder.embedding.tokens.weight = self.decoder.embedding.tokens.weight
        self.decoder.tie()
        self.encoder.tie()
