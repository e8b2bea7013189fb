"""Blur of bytes with kernels in units of 1/256, which OpenCV computes in integers, twice as fast as its Gaussian blur.

PIL blurs with a box, three times over (Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended
box filtering", SSVM 2011). The kernel here is those three boxes in one, so it is nearer to PIL than a Gaussian is.
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.augment.pil_operations import Blur, blurred, kernel_side

SIGMA_STEPS = 64
"""Steps per pixel to which the standard deviation is rounded."""
WIDEST = 2.4
"""Largest standard deviation in pixels; beyond it weights in units of 1/256 are too coarse, and PIL blurs."""
PASSES = 3
UNIT = 256


def blur(image: NDArray[np.uint8], how: Blur, out: NDArray[np.uint8]) -> None:
    """Blur `image`, uint8 `[S, S]` or `[S, S, 3]`, into `out` of the same shape, which must not overlap it."""
    if how.sigma > WIDEST:
        np.copyto(out, np.asarray(blurred(Image.fromarray(image), how)))
    elif how.kernel is None:
        kernel = box_kernel(round(how.sigma * SIGMA_STEPS))
        # PIL extends the border by its last pixel before each pass; for boxes of three pixels that is the mirror image.
        cv2.sepFilter2D(image, -1, kernel, kernel, dst=out, borderType=cv2.BORDER_REFLECT)
    else:
        kernel = gaussian_kernel(round(how.sigma * SIGMA_STEPS), kernel_side(how.kernel, image.shape[1]))
        cv2.sepFilter2D(image, -1, kernel, kernel, dst=out, borderType=cv2.BORDER_REFLECT_101)


@cache
def box_kernel(steps: int) -> NDArray[np.float64]:
    """PIL's three boxes as one kernel, for a standard deviation of `steps` / 64 pixels, in units of 1/256."""
    box = extended_box(steps / SIGMA_STEPS)
    return in_units(np.convolve(np.convolve(box, box), box))


def extended_box(sigma: float) -> NDArray[np.float64]:
    """The box that PIL applies three times for a Gaussian of `sigma` pixels, before it is divided by its sum.

    Its weight is 1 up to `inner` pixels from its middle and `end` at one pixel more, such that three boxes have the
    variance of the Gaussian: equations (7), (11) and (14) of Gwosdek et al.
    """
    variance = sigma**2 / PASSES
    inner = int((math.sqrt(12 * variance + 1) - 1) / 2)
    end = (2 * inner + 1) * (3 * variance - inner * (inner + 1)) / (6 * ((inner + 1) ** 2 - variance))
    return np.array([end, *[1.0] * (2 * inner + 1), end])


@cache
def gaussian_kernel(steps: int, side: int) -> NDArray[np.float64]:
    """A Gaussian with a standard deviation of `steps` / 64 pixels, sampled at `side` pixels, in units of 1/256."""
    places = np.arange(side) - side // 2
    return in_units(np.exp(-(places**2) / (2 * max(steps / SIGMA_STEPS, 1e-3) ** 2)))


def in_units(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round symmetric weights to units of 1/256 with the sum 1, and drop taps that become 0.

    The middle weight takes the rounding error, so that a constant image does not change.
    """
    rounded = np.rint(weights * (UNIT / weights.sum()))
    middle = len(rounded) // 2
    rounded[middle] += UNIT - rounded.sum()
    reach = max(1, int(np.flatnonzero(rounded)[-1]) - middle)
    return np.asarray(rounded[middle - reach : middle + reach + 1] / UNIT)
