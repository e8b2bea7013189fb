"""Blur: defocus, frosted glass, motion, zoom and Gaussian; arguments and results as in `noise`."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.corruptions.drawing import Draws, Floats
from pipeline.evaluation.corruptions.filters import Bytes, gaussian, magnified, motion_blurred


def gaussian_blur(image: Bytes, _draws: Draws, sigma: float) -> Floats:
    """Convolve with a Gaussian of `sigma` pixels."""
    return gaussian(image / 255, sigma) * 255


def defocus_blur(image: Bytes, _draws: Draws, radius: float, soft: float) -> Floats:
    """Convolve with a disk of `radius` pixels, whose edge is smoothed by a Gaussian of `soft` pixels."""
    return np.asarray(cv2.filter2D(image / 255, -1, disk(radius, soft)), np.float64) * 255


def disk(radius: float, soft: float) -> Floats:
    """The kernel of `defocus_blur`, float64 with the sum 1 and an odd side of at least 17 pixels."""
    reach, smoothed = (8, (3, 3)) if radius <= 8 else (int(radius), (5, 5))
    places = np.arange(-reach, reach + 1)
    inside = (places[:, np.newaxis] ** 2 + places[np.newaxis, :] ** 2 <= radius**2).astype(np.float64)
    return np.asarray(cv2.GaussianBlur(inside / inside.sum(), smoothed, sigmaX=soft), np.float64)


def glass_blur(image: Bytes, draws: Draws, sigma: float, reach: float, passes: float) -> Floats:
    """Blur, let pixels take the place of neighbours up to `reach` away, `passes` times, and blur again.

    The paper says that pixels are swapped. In the released code the second half of the swap has no effect (both sides
    are views of one array), so pixels are copied and not swapped. ImageNet-C was made this way, and so it is done here.
    """
    softened = (gaussian(image / 255, sigma) * 255).astype(np.uint8)
    side = image.shape[0]
    pixels = softened.reshape(side * side, -1)
    for _ in range(int(passes)):
        pixels = pixels[copied_from(draws, side, int(reach))]
    return gaussian(pixels.reshape(image.shape) / 255, sigma) * 255


def copied_from(draws: Draws, side: int, reach: int) -> NDArray[np.int64]:
    """The source of each pixel, as indices `[side * side]`, after one pass over an image from its last pixel back.

    A pixel copies from one up to `reach` before it and up to `reach - 1` behind it in each direction. If that pixel has
    been overwritten already, its own source counts. So a pass is a chain of references, which is followed to its end
    for all pixels at once.
    """
    inner = np.arange(reach + 1, side - reach + 1)
    rows, columns = inner[:, np.newaxis], inner[np.newaxis, :]
    steps = draws.integers((2, len(inner), len(inner)), -reach, reach)
    here, there = rows * side + columns, (rows + steps[0]) * side + columns + steps[1]
    count = side * side
    reference = np.arange(2 * count)  # below `count`: values after the pass; from `count` on: values before it
    reference[:count] += count
    visited = np.zeros(count, bool)
    visited[here] = True
    reference[here] = np.where(visited[there] & (there > here), there, there + count)
    while (reference[:count] < count).any():
        reference = reference[reference]
    return reference[:count] - count


def motion_blur(image: Bytes, draws: Draws, radius: float, sigma: float) -> Floats:
    """Blur along a line whose direction is drawn from -45 to 45 degrees."""
    angle = float(draws.uniform((1,), -45.0, 45.0)[0])
    return motion_blurred(image, int(radius), sigma, angle).astype(np.float64)


def zoom_blur(image: Bytes, _draws: Draws, end: float, step: float) -> Floats:
    """The mean of the image and of its middle magnified 1, 1 + step, ... times, up to `end`."""
    x = image / 255
    factors = np.arange(1, end, step)
    total = x + sum(magnified(x, float(factor)) for factor in factors)
    return np.asarray(total / (len(factors) + 1) * 255)
