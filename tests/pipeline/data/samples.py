"""What several tests of the augmentation need: a picture, its views, and tests of what is random."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from pipeline.config import AugmentConfig, DataConfig, JitterConfig
from pipeline.data.augment.views import ViewMaker

OFF = {"flip_p": 0.0, "gray_p": 0.0, "blur_p": 0.0, "solarize_p": 0.0}
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


def only(jitter: dict[str, float] | None = None, **settings: object) -> AugmentConfig:
    """Crops, and nothing else but what is given."""
    chosen = JitterConfig(p=0.0) if jitter is None else JitterConfig(p=1.0, **STILL | jitter)
    return AugmentConfig(**OFF | {"jitter": chosen} | settings)


def photo(mode: str = "RGB", height: int = 40, width: int = 52) -> Image.Image:
    """Smooth noise: all levels and hues, edges, no symmetry."""
    channels = () if mode == "L" else (3,)
    noise = np.random.default_rng(7).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    return ImageOps.autocontrast(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.0)))


def views_of(
    image: Image.Image,
    augment: AugmentConfig,
    size: int,
    num_views: int,
    seed: int,
    epoch: int,
    index: int,
    backend: Literal["fast", "pil"] = "pil",
) -> np.ndarray:
    """`[num_views, size, size, 3]`."""
    views = np.zeros((num_views, size, size, 3), np.uint8)
    data = DataConfig(augment=augment, augment_backend=backend)
    ViewMaker(data, num_views, seed).make(np.asarray(image), epoch, index, list(views))
    return views


def assert_uniform(values: list[float], low: float, high: float) -> None:
    """Kolmogorov-Smirnov distance to the uniform distribution; 1.95 / sqrt(n) is the 0.1 % point."""
    ordered = np.sort((np.asarray(values) - low) / (high - low))
    assert ordered[0] >= 0
    assert ordered[-1] <= 1
    distance = np.abs(ordered - (np.arange(len(ordered)) + 0.5) / len(ordered)).max()
    assert distance < 1.95 / len(ordered) ** 0.5


def assert_normal(values: np.ndarray) -> None:
    """The same distance after the standard normal distribution's own function has made the values uniform."""
    assert_uniform([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in values.ravel().tolist()], 0.0, 1.0)


def assert_frequency(values: list[bool], probability: float) -> None:
    """At most four standard deviations away; exactly, if it is never or always."""
    limit = 4 * (probability * (1 - probability) / len(values)) ** 0.5
    assert abs(sum(values) / len(values) - probability) <= limit


def assert_uncorrelated(columns: list[list[float]], but: tuple[tuple[int, int], ...] = ()) -> None:
    """No pair of columns is more than four standard deviations away from it, except those named in `but`."""
    correlation = np.corrcoef(np.asarray(columns, np.float64)) - np.eye(len(columns))
    for a, b in but:
        correlation[a, b] = correlation[b, a] = 0.0
    assert np.abs(correlation).max() < 4 / len(columns[0]) ** 0.5
