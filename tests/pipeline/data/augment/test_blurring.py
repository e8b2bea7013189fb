"""Blurring of bytes: kernels whose weights are whole 256ths, and what they do to an image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pipeline.data.augment.blurring import SIGMA_STEPS, WIDEST, blur, box_kernel, gaussian_kernel, in_units
from pipeline.data.augment.pil_operations import Blur, blurred
from tests.pipeline.data.samples import photo

SIGMAS = [0.1, 0.3, 0.5, 0.9, 1.3, 1.42, 1.7, 2.0, WIDEST]


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_boxes_are_pils(sigma: float) -> None:
    """What PIL makes of a line: a step of the kernel's sum at a time, to the rounding of both."""
    edge = np.zeros((61, 61), np.uint8)
    edge[:, 30:] = 255
    pil = np.asarray(Image.fromarray(edge).filter(ImageFilter.GaussianBlur(sigma)))[30].astype(float)
    kernel = box_kernel(round(sigma * SIGMA_STEPS))
    ours = np.convolve(edge[30], kernel, mode="same")[10:-10]
    assert np.abs(pil[10:-10] - ours).max() < 4.0
    assert np.abs(pil[10:-10] - ours).mean() < 0.5


@pytest.mark.parametrize("sigma", SIGMAS)
def test_kernels_are_whole_units_symmetric_and_sum_to_one(sigma: float) -> None:
    steps = round(sigma * SIGMA_STEPS)
    for kernel in (box_kernel(steps), gaussian_kernel(steps, 23)):
        assert kernel.sum() == 1.0
        np.testing.assert_array_equal(kernel, kernel[::-1])
        np.testing.assert_array_equal(kernel * 256, np.rint(kernel * 256))
        assert len(kernel) % 2 == 1
        assert len(kernel) == 3 or kernel[0] > 0


@pytest.mark.parametrize("sigma", [s for s in SIGMAS if s >= 0.5])
def test_kernels_have_the_variance_that_is_asked_for(sigma: float) -> None:
    """Less, at most, by what rounding takes away at the ends."""
    steps = round(sigma * SIGMA_STEPS)
    for kernel in (box_kernel(steps), *([gaussian_kernel(steps, 41)] if sigma > 0.8 else [])):  # else hardly sampled
        places = np.arange(len(kernel)) - len(kernel) // 2
        assert (kernel * places**2).sum() == pytest.approx(sigma**2, rel=0.05, abs=0.02)


def test_rounding_keeps_the_sum_where_every_weight_is_rounded_up() -> None:
    weights = np.array([0.6, 5.6, 10.6, 222.4, 10.6, 5.6, 0.6])
    assert (in_units(weights) * 256).tolist() == [1, 6, 11, 220, 11, 6, 1]


@pytest.mark.parametrize("shape", [(40, 40), (40, 40, 3), (8, 8, 3), (1, 1, 3)])
@pytest.mark.parametrize("kernel", [None, 0.1, 1.0])
@pytest.mark.parametrize("sigma", [0.1, 1.0, 2.0, WIDEST, 1.1 * WIDEST, 30.0])
def test_an_even_surface_stays_even(shape: tuple[int, ...], kernel: float | None, sigma: float) -> None:
    out = np.zeros(shape, np.uint8)
    blur(np.full(shape, 201, np.uint8), Blur(sigma, kernel), out)
    assert (out == 201).all()


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kernel", [None, 0.3])
def test_beyond_the_widest_kernel_it_is_pils_to_the_bit_and_below_it_near(mode: str, kernel: float | None) -> None:
    image = photo(mode)
    out = np.zeros_like(np.asarray(image))
    for sigma, limit in ((WIDEST + 0.01, 0), (9.0, 0), (WIDEST, 16), (1.3, 5)):
        blur(np.asarray(image), Blur(sigma, kernel), out)
        assert np.abs(out.astype(int) - np.asarray(blurred(image, Blur(sigma, kernel)))).max() <= limit
