"""How near the fast backend is to PIL: every operation alone, and all together."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AugmentConfig, DataConfig
from pipeline.data.augment.views import ViewMaker
from tests.pipeline.data.samples import only, views_of

PSNR, MEAN = 44.0, 1.5
"""Decibels at least, and levels of difference at most, over all images."""


OPERATIONS = {
    "crop": only(),
    "flip": only(flip_p=1.0),
    "brightness": only({"brightness": 0.4}),
    "contrast": only({"contrast": 0.4}),
    "saturation": only({"saturation": 0.2}),
    "hue": only({"hue": 0.1}),
    "any hue": only({"hue": 0.5}),
    "strong jitter": only({"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}),
    "gray": only(gray_p=1.0),
    "blur": only(blur_p=1.0),
    "blur by a kernel": only(blur_p=1.0, blur_kind="kernel"),
    "wide blur": only(blur_p=1.0, blur_sigma=(3.0, 8.0)),
    "wide blur by a kernel": only(blur_p=1.0, blur_sigma=(3.0, 8.0), blur_kind="kernel", blur_kernel=0.4),
    "solarize": only(solarize_p=1.0),
    "everything": AugmentConfig(),
}


def picture(index: int, height: int = 120, width: int = 160) -> Image.Image:
    """Noise with the spectrum of photographs (1 / frequency; Field, 1987), and channels that are as alike as theirs."""
    random = np.random.default_rng(index)
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(y, x)
    frequency[0, 0] = 1.0
    channels = []
    for _ in range(4):
        spectrum = np.fft.rfft2(random.standard_normal((height, width))) / frequency
        spectrum[0, 0] = 0.0
        plane = np.fft.irfft2(spectrum, (height, width))
        channels.append(plane / plane.std())
    common, *own = channels
    levels = np.stack([random.uniform(80, 170) + 45 * common + 18 * plane for plane in own], axis=2)
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [picture(index) for index in range(24)]


def differences(images: list[Image.Image], augment: AugmentConfig, size: int, view: int) -> np.ndarray:
    """Fast less PIL, in levels, `[N, S, S, 3]`."""
    pairs = (
        [views_of(image, augment, size, 2, 3, 1, index, backend)[view].astype(int) for backend in ("fast", "pil")]
        for index, image in enumerate(images)
    )
    return np.stack([fast - pil for fast, pil in pairs])


@pytest.mark.parametrize("size", [32, 112])
@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_near_to_pils(pictures: list[Image.Image], name: str, view: int, size: int) -> None:
    difference = differences(pictures, OPERATIONS[name], size, view)
    assert np.abs(difference).mean() <= MEAN
    assert 10 * np.log10(255**2 / np.square(difference).mean()) >= PSNR
    assert abs(difference.mean()) < 0.2, "brighter or darker on average"


@pytest.mark.parametrize("name", ["crop", "flip", "brightness", "contrast", "gray", "solarize"])
def test_what_does_not_round_otherwise_is_hardly_ever_another_level(pictures: list[Image.Image], name: str) -> None:
    difference = np.abs(differences(pictures, OPERATIONS[name], 32, 0))
    assert (difference > 0).mean() < 0.02
    assert difference.max() <= 6, "where PIL cuts off at black or white between rows and columns"


def test_gray_images_are_as_near(pictures: list[Image.Image]) -> None:
    difference = differences([image.convert("L") for image in pictures], AugmentConfig(), 32, 0)
    assert 10 * np.log10(255**2 / np.square(difference).mean()) >= PSNR


def test_the_fast_backend_is_the_default(pictures: list[Image.Image]) -> None:
    out = np.zeros((2, 32, 32, 3), np.uint8)
    ViewMaker(DataConfig(), 2, 3).make(np.asarray(pictures[0]), 1, 0, list(out))
    np.testing.assert_array_equal(out, views_of(pictures[0], AugmentConfig(), 32, 2, 3, 1, 0, "fast"))
    assert (out != views_of(pictures[0], AugmentConfig(), 32, 2, 3, 1, 0, "pil")).any()


def test_jitter_goes_in_the_drawn_order(pictures: list[Image.Image]) -> None:
    """Contrast and brightness do not commute: in another order than PIL's, images would be tens of levels away."""
    difference = differences(pictures, only({"brightness": 0.9, "contrast": 0.9, "saturation": 0.9}), 32, 0)
    assert np.abs(difference).mean(axis=(1, 2, 3)).max() < 1.0
