"""A decoder that sees: vectors of images stand in the places of image tokens (Liu et al. 2023).

B batch, T time, I images, P patches, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from limner.kernels.activations import ACTIVATIONS, Activation
from limner.models.block import BlockConfig
from limner.models.decoder import DecoderConfig
from limner.models.encoder import EncoderConfig
from limner.models.network import Network
from limner.nn.cache import DenseCache
from limner.nn.state import State


@dataclass(frozen=True)
class SeeingConfig:
    """A decoder and a tower of images.

    Images are read off after `depth` of the tower's blocks (its final norm left out), with
    `class_token` all places and without it only the patches. `image_token` marks where they stand.
    """

    family: str
    image: EncoderConfig
    decoder: DecoderConfig
    image_token: int
    depth: int
    class_token: bool = False
    activation: Activation = "gelu"
    bias: bool = True

    @property
    def width(self) -> int:
        """The width of the decoder's stream."""
        return self.decoder.width

    @property
    def context(self) -> int:
        """The longest text it was made for."""
        return self.decoder.context

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.decoder.vocabulary

    @property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The decoder's layers."""
        return self.decoder.blocks

    @property
    def places(self) -> int:
        """How many image tokens an image takes."""
        return self.image.context - (not self.class_token)

    def build(self) -> Seeing:
        """Make the network, its weights not yet set."""
        return Seeing(self)


class Projector(nn.Module):
    """From vectors of images to those of tokens: two layers."""

    def __init__(self, config: SeeingConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.image.width, config.width, config.bias)
        self.down = nn.Linear(config.width, config.width, config.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (I, P, width of the tower) to (I, P, D)."""
        return self.down(self.activation(self.up(hidden)))


class Seeing(Network):
    """Called as a decoder is, with images where its tokens speak of them."""

    config: SeeingConfig

    def __init__(self, config: SeeingConfig) -> None:
        super().__init__()
        self.config = config
        self.image, self.decoder = config.image.build(), config.decoder.build()
        self.projector = Projector(config)

    def see(self, images: Tensor) -> Tensor:
        """Vectors (I, P, D) of images (I, channels, height, width)."""
        hidden = self.image(images, depth=self.config.depth)
        return self.projector(hidden if self.config.class_token else hidden[:, 1:])

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        state: State | None = None,
        images: Tensor | None = None,
    ) -> Tensor:
        """Hidden vectors (B, T, D) of `tokens` (B, T).

        `images` (I, channels, height, width) are all those that these tokens speak of, in order;
        each takes `config.places` image tokens. Raises ValueError if there are more or fewer.
        """
        vectors = self.decoder.embedding.vectors(tokens)  # (B, T, D)
        seen = tokens == self.config.image_token
        needed, given = int(seen.sum()), 0 if images is None else len(images) * self.config.places
        if needed != given:
            raise ValueError(
                f"the tokens have {needed} places for images but the images fill {given}: "
                f"each takes {self.config.places} image tokens"
            )
        if images is not None:
            vectors = vectors.masked_scatter(seen[..., None], self.see(images).to(vectors.dtype))
        return self.decoder(tokens, positions, state, vectors)

    def logits(
        self, tokens: Tensor, state: State | None = None, images: Tensor | None = None
    ) -> Tensor:
        """Logits (B, T, V) of `tokens` (B, T)."""
        return self.head(self(tokens, state=state, images=images))

    def new_cache(self, rows: int = 1, capacity: int | None = None) -> DenseCache:
        """An empty cache for `rows` texts of up to `capacity` tokens."""
        return self.decoder.new_cache(rows, capacity)

    @property
    def head(self) -> nn.Module:
        """The decoder's language head."""
        return self.decoder.head

    def tie(self) -> None:
        """Let several places use one parameter, where the config says so."""
        self.decoder.tie()
