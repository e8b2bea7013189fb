"""Weather: snow, frost, fog, and splashes of water or mud; arguments and results as in `noise`."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.evaluation.corruptions.drawing import Draws, Floats
from pipeline.evaluation.corruptions.filters import (
    Bytes,
    gaussian,
    gray_of,
    magnified,
    motion_blurred,
    over,
    plasma,
)
from pipeline.evaluation.corruptions.frost_textures import TEXTURES, texture

WATER = np.array([175.0, 238.0, 238.0]) / 255
MUD = np.array([63.0, 42.0, 20.0]) / 255
EDGES = np.array([[-2.0, -1.0, 0.0], [-1.0, 1.0, 1.0], [0.0, 1.0, 2.0]])


def snow(
    image: Bytes, draws: Draws, mean: float, std: float, size: float, least: float, radius: float, sigma: float,
    keep: float,
) -> Floats:  # fmt: skip
    """Whiten the image and let flakes fall over it, in two directions.

    Args:
        image, draws: as in `noise`.
        mean, std: of the noise that flakes are made from.
        size: factor by which it is magnified.
        least: threshold of the noise, below which there is no flake.
        radius, sigma: of the flakes' motion blur, in pixels.
        keep: weight of the image against its whitened self.
    """
    x = image / 255
    flakes = magnified(draws.normal(image.shape[:2], mean, std), size)
    flakes[flakes < least] = 0
    levels = (np.clip(flakes, 0, 1) * 255).astype(np.uint8)
    angle = float(draws.uniform((1,), -135.0, -45.0)[0])
    layer = motion_blurred(levels, int(radius), sigma, angle) / 255
    whitened = np.maximum(x, over(gray_of(x), image) * 1.5 + 0.5)
    return (keep * x + (1 - keep) * whitened + over(layer + np.rot90(layer, 2), image)) * 255


def frost(image: Bytes, draws: Draws, keep: float, amount: float, scale: float) -> Floats:
    """Lay a piece of ice over the image.

    Args:
        image, draws: as in `noise`.
        keep, amount: weights of the image and of the ice.
        scale: of the ice's texture.
    """
    side = image.shape[0]
    number = int(draws.integers((1,), 0, TEXTURES)[0])
    ice = texture(number, scale, side)
    row, column = draws.integers((2,), 0, ice.shape[0] - side)
    piece = ice[row : row + side, column : column + side]
    return keep * image + amount * (gray_of(piece) if image.ndim == 2 else piece)


def fog(image: Bytes, draws: Draws, amount: float, decay: float) -> Floats:
    """Add a cloudy plasma of up to `amount` times the full range, and scale the sum back to the image's brightest."""
    x = image / 255
    side = image.shape[0]
    brightest = float(x.max())
    clouds = plasma(draws, 1 << (side - 1).bit_length(), decay)[:side, :side]
    return (x + amount * over(clouds, image)) * brightest / (brightest + amount) * 255


def spatter(
    image: Bytes, draws: Draws, mean: float, std: float, sigma: float, least: float, strength: float, mud: float
) -> Floats:
    """Splash water or mud on the lens.

    Args:
        image, draws: as in `noise`.
        mean, std: of the noise that drops are made from.
        sigma: of the Gaussian that smooths it, in pixels.
        least: threshold of the noise, below which there is no drop.
        strength: of water; for mud the standard deviation, in pixels, of the blur of its edge.
        mud: 1 for mud, 0 for water.
    """
    x = image / 255
    liquid = gaussian(draws.normal(image.shape[:2], mean, std), sigma)
    if mud:
        covered = gaussian((liquid > least).astype(np.float64), strength)
        covered[covered < 0.8] = 0
        return (x * (1 - over(covered, image)) + _tinted(covered, MUD, image)) * 255
    liquid[liquid < least] = 0
    levels = (np.clip(liquid, 0, 1) * 255).astype(np.uint8)
    drops = levels * _relief(levels)
    return (x + _tinted(drops / max(float(drops.max()), 1e-12) * strength, WATER, image)) * 255


def _tinted(amount: Floats, colour: Floats, image: Bytes) -> Floats:
    """A layer of a colour, `[S, S, 3]`; in gray, `[S, S]`, for a gray image."""
    layer = amount[:, :, np.newaxis] * colour
    return gray_of(layer) if image.ndim == 2 else layer


def _relief(levels: Bytes) -> Floats:
    """The brightness of each point of a drop, from its distance to an edge; `[S, S]`."""
    distance = cv2.distanceTransform(255 - cv2.Canny(levels, 50, 150), cv2.DIST_L2, 5)
    near = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
    return np.asarray(cv2.blur(cv2.filter2D(near, cv2.CV_8U, EDGES), (3, 3)), np.float64)
