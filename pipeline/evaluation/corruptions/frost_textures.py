"""Generated pictures of ice for the corruption `frost`.

The authors blend the image with one of five photographs of frosted panes from the web, whose licence does not allow
redistribution. So textures are generated: clouds and branching ferns of ice, with the mean and standard deviation of
each channel of the photograph that each replaces. Errors on `frost` are therefore comparable between
runs here, and only roughly with published ones; `evaluation.corruptions.folder` measures on the published images.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from pipeline.evaluation.corruptions.drawing import Draws, Floats
from pipeline.evaluation.corruptions.filters import Bytes, plasma

TEXTURES = 5
SIDE = 512
"""Side of a texture before it is scaled, in pixels; larger for larger images."""
COLOURS = (
    ((78, 149, 166), (27, 16, 15)),
    ((201, 205, 214), (21, 22, 23)),
    ((201, 205, 214), (21, 22, 23)),
    ((138, 153, 165), (28, 28, 30)),
    ((112, 123, 135), (44, 43, 42)),
)
"""Mean and standard deviation of red, green and blue of each photograph, in levels."""
FERNS = 60
"""Number of ferns on 512 x 512 pixels."""


@lru_cache(maxsize=TEXTURES)
def texture(number: int, scale: float, side: int) -> Floats:
    """A square picture of ice with a side of more than `side` pixels, float64 `[T, T, 3]`, not to be written to.

    Args:
        number: of the texture, from 0 to 4.
        scale: factor of the resizing, bilinear without antialiasing, as in the authors' code.
        side: of the image, in pixels.
    """
    full = max(SIDE, 1 << math.ceil((side + 1) / scale).bit_length())
    draws = Draws("frost texture", number)
    ice = plasma(draws, full, 1.7) - 0.5 + 0.5 * _ferns(draws, full)
    ice = (ice - ice.mean()) / ice.std()
    mean, std = (np.array(part, np.float64) for part in COLOURS[number])
    levels = np.clip(np.rint(ice[:, :, np.newaxis] * std + mean), 0, 255).astype(np.uint8)
    scaled = cv2.resize(levels, (0, 0), fx=scale, fy=scale)
    picture = np.asarray(scaled, np.float64)
    picture.flags.writeable = False
    return picture


def _ferns(draws: Draws, side: int) -> Floats:
    """Bright stems from random points in random directions, with side branches at 60 degrees; 0 to 1."""
    canvas = np.zeros((side, side), np.uint8)
    count = round(FERNS * (side / SIDE) ** 2)
    starts = draws.uniform((count, 2), 0.0, side)
    angles, lengths = draws.uniform((count,), 0.0, 2 * math.pi), draws.uniform((count,), 60.0, 260.0)
    for start, angle, length in zip(starts, angles, lengths, strict=True):
        _line(canvas, start, angle, length, 255)
        for along in np.arange(0.05, 1.0, 0.04):
            branch = 0.35 * length * (1 - along)
            root = start + along * length * np.array([math.cos(angle), math.sin(angle)])
            for turn in (-math.pi / 3, math.pi / 3):
                _line(canvas, root, angle + turn, branch, 170)
    return np.asarray(canvas / 255)


def _line(canvas: Bytes, start: Floats, angle: float, length: float, level: int) -> None:
    end = start + length * np.array([math.cos(angle), math.sin(angle)])
    first, last = (tuple(np.rint(point).astype(int).tolist()) for point in (start, end))
    cv2.line(canvas, first, last, level, 1, cv2.LINE_AA)
