"""The sets of augmentations that studies compare, as a user writes them: each does what its name says, and no more.

The text of a set is what stands under `data: augment:` in a configuration; what it does not name keeps
its default, so that every set says what it switches off.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tf

from pipeline.config import AugmentConfig
from pipeline.data.augment.keyed_draws import Purpose, keyed_normals
from pipeline.data.augment.parameters import draw_parameters
from pipeline.data.augment.pil_operations import ViewParameters
from tests.pipeline.data.samples import photo, views_of

CROP = """
flip_p: 0
jitter: {p: 0}
gray_p: 0
blur_p: 0
solarize_p: 0
"""
CROP_AND_BLUR = """
flip_p: 0
jitter: {p: 0}
gray_p: 0
blur_p: [1.0, 0.1]
solarize_p: 0
"""
CROP_AND_GRAY = """
flip_p: 0
jitter: {p: 0}
gray_p: 0.2
blur_p: 0
solarize_p: 0
"""
CROP_AND_SOLARIZE = """
flip_p: 0
jitter: {p: 0}
gray_p: 0
blur_p: 0
solarize_p: [0.0, 0.2]
"""
CROP_AND_JITTER = """
flip_p: 0
jitter: {p: 0.8, brightness: 0.4, contrast: 0.4, saturation: 0.2, hue: 0.1}
gray_p: 0
blur_p: 0
solarize_p: 0
"""
NOISE = """
crop_p: 0
flip_p: 0
jitter: {p: 0}
gray_p: 0
blur_p: 0
solarize_p: 0
noise_std: [0.1, 0.1]
"""
RELEASED = "{}"
SETS = {
    "crop": (CROP, {"crop"}, {"crop"}),
    "crop and blur": (CROP_AND_BLUR, {"crop", "blur"}, {"crop", "blur"}),
    "crop and gray": (CROP_AND_GRAY, {"crop", "gray"}, {"crop", "gray"}),
    "crop and solarize": (CROP_AND_SOLARIZE, {"crop"}, {"crop", "solarize"}),
    "crop and jitter": (CROP_AND_JITTER, {"crop", "jitter"}, {"crop", "jitter"}),
    "noise": (NOISE, {"noise"}, {"noise"}),
    "released": (
        RELEASED,
        {"crop", "flip", "jitter", "gray", "blur"},
        {"crop", "flip", "jitter", "gray", "blur", "solarize"},
    ),
}
"""Name to keys, and what happens to some image in view 1 and in view 2."""
EVERY_IMAGE = {"crop", "noise"}
"""What happens to every image if it happens to any, in these sets."""
HEIGHT, WIDTH, SAMPLES = 40, 80, 3000
"""Twice as wide as high: no crop can be the whole of it."""


def augment(text: str) -> AugmentConfig:
    return AugmentConfig.model_validate_json(json.dumps(yaml.safe_load(text)))


def operations(p: ViewParameters) -> set[str]:
    found = {
        "crop": (p.top, p.left, p.height, p.width) != (0, 0, HEIGHT, WIDTH),
        "flip": p.flip,
        "jitter": p.jitter is not None,
        "gray": p.gray,
        "blur": p.blur is not None,
        "solarize": p.solarize,
        "noise": p.noise_std > 0.0,
    }
    return {name for name, happens in found.items() if happens}


@pytest.mark.parametrize("name", SETS)
def test_a_set_draws_exactly_the_operations_of_its_name(name: str) -> None:
    text, *expected = SETS[name]
    config = augment(text)
    for view in (0, 1):
        drawn = [operations(draw_parameters(config, (HEIGHT, WIDTH), 2, 0, i, view)) for i in range(SAMPLES)]
        assert set().union(*drawn) == expected[view]
        assert all(expected[view] & EVERY_IMAGE <= found for found in drawn)


def resized(image: Image.Image, p: ViewParameters, size: int) -> Image.Image:
    return tf.resized_crop(image, p.top, p.left, p.height, p.width, [size, size], InterpolationMode.BICUBIC)


def reference(name: str, image: Image.Image, p: ViewParameters, size: int) -> Image.Image:
    """The one operation that the set has besides the crop, in torchvision's or PIL's own words."""
    image = resized(image, p, size)
    if name == "crop and blur" and p.blur:
        return image.filter(ImageFilter.GaussianBlur(p.blur.sigma))
    if name == "crop and gray" and p.gray:
        return tf.to_grayscale(image, 3)
    if name == "crop and solarize" and p.solarize:
        return ImageOps.solarize(image, 128)
    if name == "crop and jitter" and p.jitter:
        j = p.jitter
        adjust = (tf.adjust_brightness, tf.adjust_contrast, tf.adjust_saturation, tf.adjust_hue)
        for operation in j.order:
            image = adjust[operation](image, (j.brightness, j.contrast, j.saturation, j.hue)[operation])
    return image


@pytest.mark.parametrize("name", [name for name in SETS if name.startswith("crop")])
def test_the_pixels_of_a_set_are_those_of_its_operations_alone(name: str) -> None:
    config, image = augment(SETS[name][0]), photo("RGB", HEIGHT, WIDTH)
    for index in range(150):
        views = views_of(image, config, 24, 2, 2, 0, index)
        for view in (0, 1):
            p = draw_parameters(config, (HEIGHT, WIDTH), 2, 0, index, view)
            expected = np.asarray(reference(name, image, p, 24))
            np.testing.assert_array_equal(views[view], expected, err_msg=str(p))


def test_noise_alone_is_the_whole_image_and_noise() -> None:
    whole = np.asarray(photo().resize((24, 24), Image.Resampling.BICUBIC), np.float64)
    for index in range(50):
        views = views_of(photo(), augment(NOISE), 24, 2, 2, 0, index)
        for view in (0, 1):
            normals = keyed_normals(2, Purpose.PIXEL_NOISE, (view, index, 0), 3 * 24 * 24).reshape(3, 24, 24)
            expected = np.rint(whole + 25.5 * normals.transpose(1, 2, 0)).clip(0, 255)
            np.testing.assert_array_equal(views[view], expected)
