"""Two towers that put texts and images into one space.

B texts, I images, T time, D width, P width of the common space.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.models.block import BlockConfig
from limner.models.encoder import EncoderConfig
from limner.models.network import Network
from limner.nn.state import Documents


@dataclass(frozen=True)
class ContrastiveConfig:
    """A tower of texts, one of images, and the `projection` width of the space they share.

    A text is summed up at its first token `end`; None: at the token with the highest number.
    """

    family: str
    text: EncoderConfig
    image: EncoderConfig
    projection: int
    end: int | None = None

    @property
    def width(self) -> int:
        """The width of the stream of texts."""
        return self.text.width

    @property
    def context(self) -> int:
        """The longest text it was made for."""
        return self.text.context

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.text.vocabulary

    @property
    def blocks(self) -> tuple[BlockConfig, ...]:
        """The layers of the tower of texts."""
        return self.text.blocks

    def build(self) -> Contrastive:
        """Make the network, its weights not yet set."""
        return Contrastive(self)


class Contrastive(Network):
    """Which text goes with which image, by the cosine of their vectors (Radford et al. 2021)."""

    config: ContrastiveConfig

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        self.config = config
        self.text, self.image = config.text.build(), config.image.build()
        self.text_projection = nn.Linear(config.text.width, config.projection, bias=False)
        self.image_projection = nn.Linear(config.image.width, config.projection, bias=False)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, tokens: Tensor, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (I, B) of each of `images` with each of the texts `tokens` (B, T)."""
        texts = functional.normalize(self.embed_text(tokens, mask), dim=-1)
        pictures = functional.normalize(self.embed_image(images), dim=-1)
        return self.scale.exp() * pictures @ texts.T

    def embed_text(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Vectors (B, P) of the texts `tokens` (B, T), whose `mask` is 0 at padding behind."""
        hidden = self.text(tokens, state=None if mask is None else Documents(mask))
        end = self.config.end
        places = tokens if end is None else (tokens == end).int()
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.text_projection(hidden[rows, places.argmax(-1)])

    def embed_image(self, images: Tensor) -> Tensor:
        """Vectors (I, P) of images (I, channels, height, width)."""
        return self.image_projection(self.image(images)[:, 0])

    def tie(self) -> None:
        """Nothing is used in two places."""
