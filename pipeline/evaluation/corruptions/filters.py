"""Filters that several corruptions use: Gaussian and motion blur, zoom, bilinear sampling, plasma.

Each agrees with the library that the authors' code calls (SciPy, scikit-image, ImageMagick), and tests compare them
where possible. They use OpenCV, so that evaluation needs no further package.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.data.augment.pil_operations import LUMA
from pipeline.evaluation.corruptions.drawing import Draws, Floats

Bytes = NDArray[np.uint8]
_BORDERS = {"nearest": cv2.BORDER_REPLICATE, "reflect": cv2.BORDER_REFLECT}


def gray_of(image: NDArray[Any]) -> NDArray[Any]:
    """`[H, W]` of `[H, W]` or `[H, W, 3]`."""
    return image if image.ndim == 2 else image @ np.asarray(LUMA, image.dtype)


def over(layer: Floats, image: NDArray[Any]) -> Floats:
    """A layer `[H, W]` shaped so that it combines with every channel of `image`, `[H, W]` or `[H, W, 3]`."""
    return layer if image.ndim == 2 else layer[:, :, np.newaxis]


def gaussian(
    image: Floats, sigma: float, truncate: float = 4.0, border: Literal["nearest", "reflect"] = "nearest"
) -> Floats:
    """Convolve `[H, W]` or `[H, W, 3]` with a Gaussian that ends at `truncate` standard deviations.

    The kernel of `scipy.ndimage.gaussian_filter`, with its border modes.
    """
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return image
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    return np.asarray(cv2.sepFilter2D(image, -1, kernel, kernel, borderType=_BORDERS[border]), np.float64)


def motion_blurred(image: Bytes, radius: int, sigma: float, angle: float) -> Bytes:
    """ImageMagick's motion blur: the average along a line that begins at the pixel, weighted by half a Gaussian.

    Args:
        image: `[H, W]` or `[H, W, 3]`; the border is replicated.
        radius: the line has `2 radius + 1` pixels.
        sigma: standard deviation of the weights, in pixels.
        angle: of the line, in degrees clockwise from the right.
    """
    length = 2 * radius + 1
    weights = np.exp(-(np.arange(length) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    down, right = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    height, width = image.shape[:2]
    padded = np.pad(image, ((length, length), (length, length), (0, 0))[: image.ndim], mode="edge").astype(np.float64)
    blurred = np.zeros(image.shape)
    for place, weight in enumerate(weights):
        row, column = length + math.ceil(place * down - 0.5), length + math.ceil(place * right - 0.5)
        blurred += weight * padded[row : row + height, column : column + width]
    return np.rint(blurred).astype(np.uint8)


def magnified(image: Floats, factor: float) -> Floats:
    """The middle of a square `[S, S]` or `[S, S, 3]`, `factor` times as large, cut to `[S, S]`.

    Bilinear between the outermost pixels of the part, as `scipy.ndimage.zoom` of order 1.
    """
    side = image.shape[0]
    part = math.ceil(side / factor)
    first = (side - part) // 2
    size = round(part * factor)
    trim = (size - side) // 2
    places = first + np.arange(trim, trim + side) * ((part - 1) / max(size - 1, 1))
    lower = np.minimum(places.astype(np.int64), first + part - 2)
    share = (places - lower).reshape(-1, *[1] * (image.ndim - 1))

    def stretched(lines: Floats) -> Floats:
        return np.asarray(lines[lower] * (1 - share) + lines[lower + 1] * share)

    return stretched(stretched(image).swapaxes(0, 1)).swapaxes(0, 1)


def sampled(image: Floats, rows: Floats, columns: Floats) -> Floats:
    """Sample `[H, W]` or `[H, W, 3]` bilinearly, mirrored at the border (the last pixel twice).

    Args:
        image: the image.
        rows, columns: positions in pixels, `[H, W]` each.
    """
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = over(rows - top, image), over(columns - left, image)
    up_down = [_mirrored(top + step, image.shape[0]) for step in (0, 1)]
    left_right = [_mirrored(left + step, image.shape[1]) for step in (0, 1)]
    upper, lower = (image[r, left_right[0]] * (1 - right) + image[r, left_right[1]] * right for r in up_down)
    return np.asarray(upper * (1 - down) + lower * down)


def _mirrored(index: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    within = index % (2 * count)
    return np.minimum(within, 2 * count - 1 - within)


def plasma(draws: Draws, side: int, decay: float) -> Floats:
    """A cloudy height map from 0 to 1, `[side, side]`, periodic in both directions, by diamond-square.

    Each pass halves the grid; a new point is the mean of its four neighbours and a random part, which covers
    `[-100**2, 100**2)` at first and is `decay` squared times smaller in every pass.

    Args:
        draws: source of the random numbers.
        side: in pixels, a power of two.
        decay: factor by which details fade per pass.
    """
    height = np.zeros((side, side))
    step, reach = side, 100.0
    while step >= 2:
        half = step // 2
        corners = height[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        middles = _jittered(pairs + np.roll(pairs, -1, 1), reach, draws)
        height[half::step, half::step] = middles
        for row, column, here, beside in (
            (0, half, corners + np.roll(corners, -1, 1), middles + np.roll(middles, 1, 0)),
            (half, 0, corners + np.roll(corners, -1, 0), middles + np.roll(middles, 1, 1)),
        ):
            height[row::step, column::step] = _jittered(here + beside, reach, draws)
        step, reach = half, reach / decay
    height -= height.min()
    return np.asarray(height / max(height.max(), 1e-12))


def _jittered(total: Floats, reach: float, draws: Draws) -> Floats:
    return total / 4 + reach * draws.uniform(total.shape, -reach, reach)
