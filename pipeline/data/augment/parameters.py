"""The random parameters of each view, drawn from a key: the released two-view augmentation, and the negative patch.

Parameters are drawn here and applied in `pil_operations.py` and `fast_operations.py`. The parameters of a view
are a pure function of (seed, epoch, image, view). Every view draws the same number of random numbers whatever is
switched on, so that changing one probability leaves all other draws unchanged. The noise on the pixels has its
own stream with the same key.
"""

from __future__ import annotations

import math
from itertools import permutations

from pipeline.config import AugmentConfig
from pipeline.data.augment.keyed_draws import Purpose, keyed_uniforms
from pipeline.data.augment.pil_operations import Blur, Jitter, ViewParameters

CROP_TRIES = 10
CROP_RATIO = (3 / 4, 4 / 3)
LOG_RATIO = (math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]))
BOX_DRAWS = 2 * CROP_TRIES + 2
DRAWS = BOX_DRAWS + 12
ORDERS = tuple(permutations(range(4)))
PATCH = 2
"""Index of the view that is the negative patch, in a run that has one; such a run compares views 0 and 1."""


def draw_parameters(
    config: AugmentConfig, image_size: tuple[int, int], seed: int, epoch: int, index: int, view: int
) -> ViewParameters:
    """Draw the parameters of one view.

    Args:
        config: probabilities and ranges.
        image_size: height and width of the image, in pixels.
        seed: of the run.
        epoch: counted from 0.
        index: of the image in the data set.
        view: counted from 0; view 0 takes the first value of each pair in `config`, all others the second.
    """
    draws = keyed_uniforms(seed, Purpose.VIEW, (view, index, epoch), DRAWS)
    which = min(view, 1)
    # New draws go to the end, or the views of all existing runs would change.
    flip, jitter, brightness, contrast, saturation, hue, order, gray, blur, sigma, solarize, crop = draws[BOX_DRAWS:]
    return ViewParameters(
        *(_draw_box(config.crop_scale, image_size, draws) if crop < config.crop_p[which] else (0, 0, *image_size)),
        flip=flip < config.flip_p[which],
        jitter=Jitter(
            _factor(brightness, config.jitter.brightness),
            _factor(contrast, config.jitter.contrast),
            _factor(saturation, config.jitter.saturation),
            _between(hue, -config.jitter.hue, config.jitter.hue),
            ORDERS[int(order * len(ORDERS))],
        )
        if jitter < config.jitter.p[which]
        else None,
        gray=gray < config.gray_p[which],
        blur=_blur(config, sigma) if blur < config.blur_p[which] else None,
        solarize=solarize < config.solarize_p[which],
        noise_std=config.noise_std[which],
    )


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


def _blur(config: AugmentConfig, draw: float) -> Blur:
    return Blur(_between(draw, *config.blur_sigma), config.blur_kernel if config.blur_kind == "kernel" else None)
