"""What is done to pixels: equal to torchvision's to the bit, a kernel's blur to one level of 255."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tf

from pipeline.config import AugmentConfig
from pipeline.data.augment.parameters import draw_parameters
from pipeline.data.augment.pil_operations import Blur, Jitter, ViewParameters, add_noise, apply, kernel_side
from tests.pipeline.data.samples import photo

IDENTITY = ViewParameters(0, 0, 40, 52)


def torchvision_view(image: Image.Image, p: ViewParameters, size: int) -> np.ndarray:
    """The released `Transform`, written with torchvision and PIL's own classes."""
    image = tf.resized_crop(
        image.convert("RGB"), p.top, p.left, p.height, p.width, [size, size], InterpolationMode.BICUBIC
    )
    if p.flip:
        image = tf.hflip(image)
    if p.jitter:
        steps = [
            lambda i, f: tf.adjust_brightness(i, f),
            lambda i, f: tf.adjust_contrast(i, f),
            lambda i, f: tf.adjust_saturation(i, f),
            lambda i, f: tf.adjust_hue(i, f),
        ]
        factors = (p.jitter.brightness, p.jitter.contrast, p.jitter.saturation, p.jitter.hue)
        for operation in p.jitter.order:
            image = steps[operation](image, factors[operation])
    if p.gray:
        image = tf.to_grayscale(image, 3)
    if p.blur:
        image = image.filter(ImageFilter.GaussianBlur(p.blur.sigma))
    if p.solarize:
        image = ImageOps.solarize(image, 128)
    return np.asarray(image)


def view_of(image: Image.Image, p: ViewParameters, size: int) -> np.ndarray:
    return np.asarray(apply(image, p, size).convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("view", [0, 1])
def test_drawn_views_equal_torchvision_to_the_bit(mode: str, view: int) -> None:
    """For mode L this is also the proof that the one-channel shortcut is exact: the reference works on RGB."""
    config = AugmentConfig(crop_p=(0.8, 0.8), solarize_p=(0.5, 0.5), blur_p=(0.7, 0.7))
    image = photo(mode)
    for index, size in itertools.product(range(150), (24, 37)):
        p = draw_parameters(config, (image.height, image.width), 3, 0, index, view)
        np.testing.assert_array_equal(view_of(image, p, size), torchvision_view(image, p, size), err_msg=str(p))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_every_order_of_the_colour_jitter_equals_torchvision(order: tuple[int, ...]) -> None:
    for mode in ("RGB", "L"):
        p = replace(IDENTITY, jitter=Jitter(1.37, 0.61, 1.19, -0.083, order), solarize=True)
        np.testing.assert_array_equal(view_of(photo(mode), p, 32), torchvision_view(photo(mode), p, 32))


@pytest.mark.parametrize("gray", [False, True])
def test_extreme_factors_equal_torchvision(gray: bool) -> None:
    for factor, hue in ((0.0, 0.5), (0.001, -0.5), (2.5, 0.003), (1.0, -0.001)):
        p = replace(IDENTITY, jitter=Jitter(factor, factor, factor, hue, (3, 1, 0, 2)), gray=gray, blur=Blur(0.1, None))
        np.testing.assert_array_equal(view_of(photo(), p, 32), torchvision_view(photo(), p, 32))


def test_a_hue_that_is_switched_off_leaves_colours_alone() -> None:
    """Going to HSV and back rounds; torchvision does not go there when hue is 0, and neither do we."""
    p = replace(IDENTITY, jitter=Jitter(1.0, 1.0, 1.0, 0.0, (3, 0, 1, 2)))
    np.testing.assert_array_equal(view_of(photo(), p, 32), view_of(photo(), replace(p, jitter=None), 32))


@pytest.mark.parametrize(
    ("share", "size", "side"),
    [(0.1, 224, 23), (0.1, 32, 3), (0.1, 28, 3), (0.1, 8, 3), (0.1, 96, 9), (0.1, 64, 7), (0.1, 220, 23),
     (0.1, 160, 17), (0.1, 159, 15), (0.58, 100, 59), (1.0, 8, 9), (0.001, 500, 3)],
)  # fmt: skip
def test_the_side_of_the_kernel_is_the_nearest_odd_number(share: float, size: int, side: int) -> None:
    assert kernel_side(share, size) == side
    assert side % 2 == 1
    assert side == 3 or abs(side - share * size) <= 1.0 + 1e-9


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("size", "share"), [(224, 0.1), (32, 0.1), (96, 0.1), (8, 1.0), (37, 0.4)])
def test_the_kernel_blur_is_torchvisions_to_one_level(mode: str, size: int, share: float) -> None:
    """torchvision mirrors the border in the same way; sums of floats may round to the neighbouring level."""
    image = photo(mode, 90, 120)
    side = kernel_side(share, size)
    unblurred = ViewParameters(0, 0, 90, 120)
    for sigma in (0.1, 0.35, 0.7, 1.3, 2.0, 5.0):
        found = view_of(image, replace(unblurred, blur=Blur(sigma, share)), size)
        sharp = Image.fromarray(view_of(image, unblurred, size))
        expected = np.asarray(tf.gaussian_blur(sharp, [side, side], [sigma, sigma]))
        difference = np.abs(found.astype(int) - expected.astype(int))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_a_blurred_dot_is_the_sampled_gaussian_cut_off_at_the_kernel() -> None:
    """PIL's blur, by contrast, reaches further than five pixels at this sigma."""
    dot = Image.new("L", (41, 41))
    dot.putpixel((20, 20), 255)
    p = ViewParameters(0, 0, 41, 41, blur=Blur(2.0, 0.1))
    kernel, pil = (view_of(dot, q, 41)[..., 0] for q in (p, replace(p, blur=Blur(2.0, None))))
    weights = np.exp(-np.square(np.arange(-2, 3)) / (2 * 2.0**2))
    weights /= weights.sum()
    expected = np.zeros((41, 41))
    expected[18:23, 18:23] = 255 * np.outer(weights, weights)
    np.testing.assert_array_equal(kernel, np.rint(expected))
    assert (pil[expected == 0] > 0).any()


def test_noise_is_added_rounded_and_cut_off() -> None:
    pixels = np.array([[0, 0, 100, 100, 100, 250, 255]], np.uint8)
    levels = np.array([[-3.0, 3.4, 0.6, -0.6, 0.4, 9.0, -1.6]])
    noisy = add_noise(pixels, levels / 255)
    assert noisy.dtype == np.uint8
    assert noisy.tolist() == [[0, 3, 101, 99, 100, 255, 253]]


def test_noise_of_three_channels_makes_a_gray_view_one_of_three() -> None:
    noise = np.array([0.0, 10.0, -10.0]) / 255
    noisy = add_noise(np.full((2, 2, 1), 100, np.uint8), np.broadcast_to(noise, (2, 2, 3)))
    assert noisy.shape == (2, 2, 3)
    assert noisy[1, 0].tolist() == [100, 110, 90]
