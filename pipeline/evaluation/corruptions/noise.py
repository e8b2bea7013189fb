"""Noise on single pixels: Gaussian, shot, impulse and speckle.

Every function takes bytes `[S, S]` or `[S, S, 3]`, the random numbers of this image, and the parameters of its row in
`parameters.PARAMETERS`. It returns levels from 0 to 255, which `corrupt` clips and truncates to bytes.
"""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.corruptions.drawing import Draws, Floats
from pipeline.evaluation.corruptions.filters import Bytes


def gaussian_noise(image: Bytes, draws: Draws, std: float) -> Floats:
    """Add Gaussian noise; `std` is of pixels scaled to [0, 1]."""
    return (image / 255 + draws.normal(image.shape, 0.0, std)) * 255


def shot_noise(image: Bytes, draws: Draws, photons: float) -> Floats:
    """Poisson noise, with an expected count of `photons` at the brightest level."""
    return draws.poisson(image / 255 * photons) / photons * 255


def impulse_noise(image: Bytes, draws: Draws, share: float) -> Floats:
    """Salt and pepper: this share of the values becomes 0 or 255, independently per channel."""
    struck = draws.uniform(image.shape, 0.0, 1.0) <= share
    salt = draws.uniform(image.shape, 0.0, 1.0) <= 0.5
    return np.where(struck, np.where(salt, 255.0, 0.0), image)


def speckle_noise(image: Bytes, draws: Draws, std: float) -> Floats:
    """Add Gaussian noise in proportion to each pixel."""
    x = image / 255
    return (x + x * draws.normal(image.shape, 0.0, std)) * 255
