"""Images: from files to the numbers that models which see read.

C channels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

#: Mean and deviation of red, green and blue in the images that CLIP was trained with, and of ViT's.
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
PLAIN = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
#: Pillow's number of bicubic interpolation.
BICUBIC = 3


@dataclass(frozen=True)
class ImageConfig:
    """How an image is made ready.

    `size` is (height, width), or with `shortest` what the shorter edge becomes; None leaves it.
    `crop` (height, width) is cut from the middle then. Values from 0 to 1 (with `rescale`) have
    `mean` taken off and are divided by `deviation`, a number for each of red, green and blue.
    """

    size: tuple[int, int] | None = (224, 224)
    shortest: bool = True
    crop: tuple[int, int] | None = (224, 224)
    interpolation: int = BICUBIC
    rescale: float = 1 / 255
    mean: tuple[float, ...] = CLIP[0]
    deviation: tuple[float, ...] = CLIP[1]

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> ImageConfig:
        """From the fields of a preprocessor_config.json."""
        size = fields.get("size", 224)
        shortest = isinstance(size, int) and fields.get("do_center_crop", False)
        if isinstance(size, Mapping) and "shortest_edge" in size:
            size, shortest = size["shortest_edge"], True
        normal = fields.get("do_normalize", True)
        mean = tuple(fields.get("image_mean", PLAIN[0])) if normal else (0.0,) * 3
        deviation = tuple(fields.get("image_std", PLAIN[1])) if normal else (1.0,) * 3
        scale = fields.get("rescale_factor", 1 / 255) if fields.get("do_rescale", True) else 1.0
        return cls(
            size=_pair(size) if fields.get("do_resize", True) else None,
            shortest=shortest,
            crop=_pair(fields.get("crop_size", size)) if fields.get("do_center_crop") else None,
            interpolation=fields.get("resample", 2),
            rescale=scale,
            mean=mean,
            deviation=deviation,
        )


def _pair(size: int | Mapping[str, int]) -> tuple[int, int]:
    """Height and width of a size, which is a number if they are equal."""
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def open_image(path: Path) -> Image.Image:
    """An image from a file; ValueError if it is none, FileNotFoundError if there is none.

    Raises ImportError that says what to install where Pillow is missing.
    """
    image = _pillow()
    try:
        return image.open(path).convert("RGB")
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"'{path}' is no image that can be read here") from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("images need Pillow: pip install 'limner[vision]'") from error
    return Image


def prepare_image(image: Image.Image, config: ImageConfig) -> Tensor:
    """The numbers (C, height, width) of an image, as a model of this config reads them."""
    image = image.convert("RGB")
    if config.size is not None:
        height, width = target_size(image.height, image.width, config)
        image = image.resize((width, height), _pillow().Resampling(config.interpolation))
    values = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    pixels = values.view(image.height, image.width, 3).permute(2, 0, 1) * config.rescale
    if config.crop is not None:
        pixels = crop_middle(pixels, *config.crop)
    mean, deviation = torch.tensor(config.mean), torch.tensor(config.deviation)
    return (pixels - mean[:, None, None]) / deviation[:, None, None]


def target_size(height: int, width: int, config: ImageConfig) -> tuple[int, int]:
    """The height and width that an image of `height` x `width` pixels is brought to."""
    assert config.size is not None
    if not config.shortest:
        return config.size
    edge, short = config.size[0], min(height, width)
    long = edge * max(height, width) // short
    return (edge, long) if height <= width else (long, edge)


def crop_middle(pixels: Tensor, height: int, width: int) -> Tensor:
    """The middle of `pixels` (C, ...), with zeros around where they do not reach."""
    have_height, have_width = pixels.shape[1:]
    around_height, around_width = max(0, height - have_height), max(0, width - have_width)
    before = (-(-around_width // 2), -(-around_height // 2))
    after = (around_width // 2, around_height // 2)
    padded = torch.nn.functional.pad(pixels, (before[0], after[0], before[1], after[1]))
    top = (padded.shape[1] - height) // 2
    left = (padded.shape[2] - width) // 2
    return padded[:, top : top + height, left : left + width]


@dataclass(frozen=True)
class ImageFiles:
    """The images of a collection of texts, by their numbers, read when they are needed."""

    paths: tuple[Path, ...]
    config: ImageConfig

    def read(self, numbers: Iterable[int]) -> Tensor:
        """The numbers (I, C, height, width) of these images, which all come to one size."""
        opened = (open_image(self.paths[number]) for number in numbers)
        return torch.stack([prepare_image(image, self.config) for image in opened])


def images_of_captions(path: Path) -> tuple[Path, ...]:
    """The images that a file of captions names: JSON lines with "image", a path from its folder.

    Raises ValueError for a line that names none, FileNotFoundError if a file is missing.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(path.parent / json.loads(line)["image"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f'{path}, line {number}: no image: write {{"text": ..., "image": ...}} in each line'
            ) from None
        if not found[-1].is_file():
            raise FileNotFoundError(f"{path}, line {number}: there is no image '{found[-1]}'")
    return tuple(found)
