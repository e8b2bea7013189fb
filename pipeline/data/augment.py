"""The released two-view augmentation, drawn per sample from a key, and the third view that a loss may ask for.

What is drawn (here) is apart from what is applied (`operations.py`): the parameters of a view are a
pure function of (seed, epoch, image, view), and every view consumes the same numbers whatever is
switched on, so that changing one probability leaves all other draws as they were. The noise on the
pixels has a stream of its own, keyed alike.
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import Augment
from pipeline.data.draws import Purpose, keyed_normals, keyed_uniforms
from pipeline.data.operations import Blur, Jitter, ViewParameters, add_noise, apply, channels_first

CROP_TRIES = 10
CROP_RATIO = (3 / 4, 4 / 3)
LOG_RATIO = (math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]))
BOX_DRAWS = 2 * CROP_TRIES + 2
DRAWS = BOX_DRAWS + 12
ORDERS = tuple(permutations(range(4)))
PATCH = 2
"""The view that is the negative patch; views 0 and 1 are the two that are compared."""
EVALUATION_MARGIN = 256 / 224
"""The released evaluation resizes to 256 pixels before it crops 224."""
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def draw_parameters(
    config: Augment, image_size: tuple[int, int], seed: int, epoch: int, index: int, view: int
) -> ViewParameters:
    """Draw the parameters of one view.

    Args:
        config: probabilities and ranges.
        image_size: height and width of the image, in pixels.
        seed: of the run.
        epoch: counted from 0.
        index: of the image in the data set.
        view: 0 or 1; 2 for the negative patch, which is cropped and nothing else.
    """
    draws = keyed_uniforms(seed, Purpose.VIEW, (view, index, epoch), DRAWS)
    if view == PATCH:
        return ViewParameters(*_draw_box(config.patch_scale, image_size, draws))
    # A draw for something new goes to the end, or every run there has been would change.
    flip, jitter, brightness, contrast, saturation, hue, order, gray, blur, sigma, solarize, crop = draws[BOX_DRAWS:]
    return ViewParameters(
        *(_draw_box(config.crop_scale, image_size, draws) if crop < config.crop_p[view] else (0, 0, *image_size)),
        flip=flip < config.flip_p[view],
        jitter=Jitter(
            _factor(brightness, config.jitter.brightness),
            _factor(contrast, config.jitter.contrast),
            _factor(saturation, config.jitter.saturation),
            _between(hue, -config.jitter.hue, config.jitter.hue),
            ORDERS[int(order * len(ORDERS))],
        )
        if jitter < config.jitter.p[view]
        else None,
        gray=gray < config.gray_p[view],
        blur=_blur(config, sigma) if blur < config.blur_p[view] else None,
        solarize=solarize < config.solarize_p[view],
        noise_std=config.noise_std[view],
    )


def make_views(
    image: Image.Image,
    config: Augment,
    size: int,
    num_views: int,
    seed: int,
    epoch: int,
    index: int,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """The views of one image, written into `out` if it is given.

    Noise on the pixels is independent per channel; an image of one channel (mode L) has one noise for
    all three, so that it stays gray. A view that grayscale made of a colour image has three.

    Args:
        image: mode L or RGB.
        config: probabilities and ranges.
        size: side of the views, in pixels.
        num_views: 2, or 3 with the negative patch; the first two are the same either way.
        seed: of the run.
        epoch: counted from 0.
        index: of the image in the data set.
        out: uint8 `[num_views, 3, size, size]`.

    Returns:
        uint8 `[num_views, 3, size, size]`.
    """
    views = np.empty((num_views, 3, size, size), np.uint8) if out is None else out
    for view in range(num_views):
        parameters = draw_parameters(config, (image.height, image.width), seed, epoch, index, view)
        pixels = channels_first(apply(image, parameters, size))
        if parameters.noise_std > 0.0:
            shape = (size, size) if image.mode == "L" else (3, size, size)
            normals = keyed_normals(seed, Purpose.PIXEL_NOISE, (view, index, epoch), math.prod(shape))
            pixels = add_noise(pixels, parameters.noise_std * normals.reshape(shape))
        views[view] = pixels
    return views


def evaluation_view(
    image: Image.Image, size: int, interpolation: Literal["bilinear", "bicubic"] = "bilinear"
) -> NDArray[np.uint8]:
    """The view that is evaluated on, uint8 `[3, size, size]`, nothing random.

    An image that has the size already stays as it is; any other is resized until its short side is
    256/224 of `size`, and its centre is cut out: bilinearly, as the released `evaluate.py` does, or
    bicubically, as the BYOL reproduction's `dataset.py` does.
    """
    if image.size != (size, size):
        short = round(size * EVALUATION_MARGIN)
        width, height = image.size
        long = int(short * max(width, height) / min(width, height))
        resized = (short, long) if width <= height else (long, short)
        image = image.resize(resized, RESAMPLING[interpolation])
        left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.broadcast_to(channels_first(image), (3, size, size)))


def _draw_box(scale: tuple[float, float], image_size: tuple[int, int], draws: list[float]) -> tuple[int, int, int, int]:
    """Top, left, height, width, distributed as torchvision's `RandomResizedCrop.get_params` does."""
    image_height, image_width = image_size
    area = image_height * image_width
    for attempt in range(CROP_TRIES):
        target = area * _between(draws[2 * attempt], *scale)
        ratio = math.exp(_between(draws[2 * attempt + 1], *LOG_RATIO))
        width = round(math.sqrt(target * ratio))
        height = round(math.sqrt(target / ratio))
        if 0 < width <= image_width and 0 < height <= image_height:
            top = int(draws[2 * CROP_TRIES] * (image_height - height + 1))
            left = int(draws[2 * CROP_TRIES + 1] * (image_width - width + 1))
            return top, left, height, width
    height, width = image_height, image_width
    if width / height < CROP_RATIO[0]:
        height = round(width / CROP_RATIO[0])
    elif width / height > CROP_RATIO[1]:
        width = round(height * CROP_RATIO[1])
    return (image_height - height) // 2, (image_width - width) // 2, height, width


def _between(draw: float, low: float, high: float) -> float:
    return low + draw * (high - low)


def _factor(draw: float, strength: float) -> float:
    return _between(draw, max(0.0, 1.0 - strength), 1.0 + strength)


def _blur(config: Augment, draw: float) -> Blur:
    return Blur(_between(draw, *config.blur_sigma), config.blur_kernel if config.blur_kind == "kernel" else None)
