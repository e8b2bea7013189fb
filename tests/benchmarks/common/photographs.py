"""Photographs for benchmarks, without a download: crops of those that scikit-image and scikit-learn ship.

    pip install scikit-image scikit-learn

Every image is another crop at another scale, mirrored or not, with noise as of a sensor: ten sources, so of little
variety, but of the size and the spectrum of ImageNet's.
"""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image

SIDES = (375, 500)
NOISE = 4.0
"""Standard deviation, in levels."""
QUALITY = 90


@cache
def sources() -> tuple[Image.Image, ...]:
    """RGB photographs of 400 to 1,500 pixels a side."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    pixels = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), data.stereo_motorcycle()[0]]
    pixels += [data.retina(), data.hubble_deep_field(), data.immunohistochemistry(), *load_sample_images().images]
    return tuple(Image.fromarray(image) for image in pixels)


def photograph(index: int) -> Image.Image:
    """An RGB image of 500 x 375 or 375 x 500 pixels; a function of `index`."""
    random = np.random.default_rng(index)
    source = sources()[index % len(sources())]
    width, height = SIDES if random.random() < 0.3 else SIDES[::-1]
    scale = min(source.width / width, source.height / height) * random.uniform(0.6, 1.0)
    left, top = random.uniform(0, source.width - scale * width), random.uniform(0, source.height - scale * height)
    box = (left, top, left + scale * width, top + scale * height)
    image = source.resize((width, height), Image.Resampling.LANCZOS, box=box)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    noisy = np.asarray(image) + random.normal(0.0, NOISE, (height, width, 3))
    return Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    """As cameras and data sets have them: quality 90, colours at half the resolution."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def shrunk(image: Image.Image, short: int) -> Image.Image:
    """Resized until the short side is `short` pixels."""
    factor = short / min(image.size)
    size = (max(short, round(image.width * factor)), max(short, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC)
