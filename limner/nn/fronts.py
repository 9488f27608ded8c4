"""What stands in front of an encoder of sounds or images, and makes the vectors it reads.

B batch, T time, D width, M mel bands, F frames, C channels, P places of patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class SoundConfig:
    """Two convolutions over a spectrogram of `bands` mel bands, the second halving its length."""

    bands: int

    def build(self, width: int) -> nn.Module:
        """Make the front for a stream of `width` numbers."""
        return Sound(width, self)


class Sound(nn.Module):
    """From spectrograms to vectors (Radford et al. 2022)."""

    def __init__(self, width: int, config: SoundConfig) -> None:
        super().__init__()
        self.first = nn.Conv1d(config.bands, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Vectors (B, F / 2, D) of spectrograms (B, M, F)."""
        hidden = functional.gelu(self.first(spectrogram))  # (B, D, F)
        return functional.gelu(self.second(hidden)).transpose(1, 2)  # (B, F / 2, D)

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """Random weights to begin with."""
        for convolution in (self.first, self.second):
            nn.init.normal_(convolution.weight, std=deviation, generator=generator)
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)


@dataclass(frozen=True)
class PatchesConfig:
    """Square patches of square images, `image` and `patch` pixels wide; a class token before them.

    Raises ValueError if a patch is larger than the image.
    """

    image: int
    patch: int
    channels: int = 3
    bias: bool = True

    def __post_init__(self) -> None:
        if self.patch > self.image:
            raise ValueError(f"a patch of {self.patch} pixels is wider than images of {self.image}")

    def build(self, width: int) -> nn.Module:
        """Make the front for a stream of `width` numbers."""
        return Patches(width, self)

    @property
    def places(self) -> int:
        """How many vectors an image becomes, the class token counted."""
        return (self.image // self.patch) ** 2 + 1


class Patches(nn.Module):
    """Each patch of an image projected, a learnt token first (Dosovitskiy et al. 2020)."""

    def __init__(self, width: int, config: PatchesConfig) -> None:
        super().__init__()
        self.config = config
        self.class_token = nn.Parameter(torch.zeros(width))
        size = config.patch
        self.project = nn.Conv2d(config.channels, width, size, stride=size, bias=config.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Vectors (B, P, D) of images (B, C, height, width).

        Raises ValueError if they are not of the size that the model was made for.
        """
        size = self.config.image
        if images.shape[-2:] != (size, size):
            height, width = images.shape[-2:]
            raise ValueError(f"the image is {width}x{height} pixels but must be {size}x{size}")
        patches = self.project(images).flatten(2).transpose(1, 2)  # (B, P - 1, D)
        first = self.class_token.expand(len(images), 1, -1)
        return torch.cat((first, patches), 1)

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """Random weights to begin with."""
        for weight in (self.class_token, self.project.weight):
            nn.init.normal_(weight, std=deviation, generator=generator)
        if self.project.bias is not None:
            nn.init.zeros_(self.project.bias)
