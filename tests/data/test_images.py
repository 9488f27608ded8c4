"""Images are made ready as transformers does it."""

import json

import numpy
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from limner.data.images import ImageConfig, open_image, prepare_image

PROCESSORS = {
    "clip": CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ),
    "clip-wide-crop": CLIPImageProcessorPil(
        size={"shortest_edge": 20}, crop_size={"height": 25, "width": 18}
    ),
    "vit": ViTImageProcessorPil(size={"height": 30, "width": 22}),
    "plain": ViTImageProcessorPil(size={"height": 16, "width": 16}, do_normalize=False, resample=3),
}


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("shape", [(45, 67), (80, 33), (32, 32), (9, 11)])
def test_pixels_equal_the_reference(name, shape, tmp_path):
    noise = numpy.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=numpy.uint8)
    image = Image.fromarray(noise)
    processor = PROCESSORS[name]
    processor.save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "preprocessor_config.json").read_text())
    want = torch.tensor(processor(image)["pixel_values"][0])
    image.save(tmp_path / "image.png")
    again = prepare_image(open_image(tmp_path / "image.png"), ImageConfig.read(fields))
    torch.testing.assert_close(again, want.float(), atol=1e-5, rtol=1e-5)


def test_old_settings_are_read():
    fields = {"do_center_crop": True, "size": 20, "crop_size": 16, "resample": 3}
    config = ImageConfig.read(fields | {"image_mean": [0.1] * 3, "image_std": [0.2] * 3})
    assert (config.size, config.shortest, config.crop) == ((20, 20), True, (16, 16))
    assert (config.mean, config.deviation) == ((0.1,) * 3, (0.2,) * 3)


def test_grey_and_transparent_images_become_coloured():
    for mode in ("L", "RGBA", "P"):
        pixels = prepare_image(Image.new(mode, (9, 9)), ImageConfig(size=(8, 8), crop=None))
        assert pixels.shape == (3, 8, 8)


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(ValueError, match=r"'.*x\.png' is no image that can be read here"):
        open_image(tmp_path / "x.png")
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "missing.png")
