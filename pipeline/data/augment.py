"""The released two-view augmentation, drawn per sample from a key and applied with PIL.

Follows `Transform` of https://github.com/facebookresearch/barlowtwins (main.py), operation by
operation: random resized crop (bicubic), flip, colour jitter in random order, grayscale, Gaussian
blur, solarisation. What is drawn is apart from what is applied: the parameters of a view are a pure
function of (seed, epoch, image, view), and every view consumes the same numbers whatever is
switched on, so that changing one probability leaves all other draws as they were.

A gray image stays in one channel until the end. That is exact: saturation, hue and grayscale leave
gray pixels as they are, and PIL treats the channels of all other operations alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from pipeline.config import Augment
from pipeline.data.draws import Purpose, keyed_uniforms

CROP_TRIES = 10
CROP_RATIO = (3 / 4, 4 / 3)
LOG_RATIO = (math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1]))
DRAWS = 2 * CROP_TRIES + 2 + 11
ORDERS = tuple(permutations(range(4)))
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
EVALUATION_MARGIN = 256 / 224
"""The released evaluation resizes to 256 pixels before it crops 224."""


@dataclass(frozen=True)
class Jitter:
    """Colour factors (1 changes nothing; hue: 0) and the order in which they are applied."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[int, ...]


@dataclass(frozen=True)
class ViewParameters:
    """Everything that makes one view; pixels, counted from the top left corner."""

    top: int
    left: int
    height: int
    width: int
    flip: bool
    jitter: Jitter | None
    gray: bool
    blur_radius: float | None
    solarize: bool


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
        view: 0 or 1.
    """
    draws = keyed_uniforms(seed, Purpose.VIEW, (view, index, epoch), DRAWS)
    flip, jitter, brightness, contrast, saturation, hue, order, gray, blur, radius, solarize = draws[-11:]
    top, left, height, width = _draw_box(config.crop_scale, image_size, draws)
    return ViewParameters(
        top=top,
        left=left,
        height=height,
        width=width,
        flip=flip < config.flip_p,
        jitter=Jitter(
            _factor(brightness, config.jitter.brightness),
            _factor(contrast, config.jitter.contrast),
            _factor(saturation, config.jitter.saturation),
            _between(hue, -config.jitter.hue, config.jitter.hue),
            ORDERS[int(order * len(ORDERS))],
        )
        if jitter < config.jitter.p
        else None,
        gray=gray < config.gray_p,
        blur_radius=_between(radius, *config.blur_sigma) if blur < config.blur_p[view] else None,
        solarize=solarize < config.solarize_p[view],
    )


def apply(image: Image.Image, parameters: ViewParameters, size: int) -> Image.Image:
    """Make one view of `image` (mode L or RGB): `size` x `size` pixels, mode L if it ended up gray, else RGB."""
    p = parameters
    # The crop comes first and alone: resizing with a box would let pixels outside of the crop in at its border.
    image = image.crop((p.left, p.top, p.left + p.width, p.top + p.height))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if p.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if p.jitter:
        image = _jitter(image, p.jitter)
    if p.gray and image.mode != "L":
        image = image.convert("L")
    if p.blur_radius is not None:
        image = image.filter(ImageFilter.GaussianBlur(p.blur_radius))
    if p.solarize:  # min(x, 255 - x): inverts exactly the pixels from 128 on
        image = ImageChops.darker(image, ImageChops.invert(image))
    return image


def two_views(
    image: Image.Image,
    config: Augment,
    size: int,
    seed: int,
    epoch: int,
    index: int,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Both views of one image, `[2, 3, size, size]`, written into `out` if it is given."""
    views = np.empty((2, 3, size, size), np.uint8) if out is None else out
    for view in range(2):
        parameters = draw_parameters(config, (image.height, image.width), seed, epoch, index, view)
        views[view] = _channels_first(apply(image, parameters, size))
    return views


def evaluation_view(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The view that is evaluated on, `[3, size, size]`, nothing random.

    An image that has the size already stays as it is; any other is resized bilinearly until its
    short side is 256/224 of `size`, and its centre is cut out, as the released `evaluate.py` does.
    """
    if image.size != (size, size):
        short = round(size * EVALUATION_MARGIN)
        width, height = image.size
        long = int(short * max(width, height) / min(width, height))
        resized = (short, long) if width <= height else (long, short)
        image = image.resize(resized, Image.Resampling.BILINEAR)
        left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.broadcast_to(_channels_first(image), (3, size, size)))


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


def _jitter(image: Image.Image, jitter: Jitter) -> Image.Image:
    """What torchvision's `ColorJitter` does to PIL images; factors that change nothing are left out, as there."""
    colored = image.mode != "L"
    for operation in jitter.order:
        if operation == BRIGHTNESS and jitter.brightness != 1.0:
            image = Image.blend(Image.new(image.mode, image.size, 0), image, jitter.brightness)
        elif operation == CONTRAST and jitter.contrast != 1.0:
            image = _contrast(image, jitter.contrast)
        elif operation == SATURATION and colored and jitter.saturation != 1.0:
            image = Image.blend(image.convert("L").convert("RGB"), image, jitter.saturation)
        elif operation == HUE and colored and jitter.hue != 0.0:
            # Going to HSV and back rounds, so a hue that is switched off (0) must not go there.
            hsv = image.convert("HSV")
            shift = Image.new("HSV", image.size, (int(jitter.hue * 255) % 256, 0, 0))
            image = ImageChops.add_modulo(hsv, shift).convert("RGB")
    return image


def _contrast(image: Image.Image, factor: float) -> Image.Image:
    """Blend with the mean gray level, rounded; PIL's own `ImageEnhance.Contrast` sums in Python, seven times slower."""
    gray = np.frombuffer((image if image.mode == "L" else image.convert("L")).tobytes(), np.uint8)
    mean = int(int(gray.sum(dtype=np.int64)) / gray.size + 0.5)
    level = mean if image.mode == "L" else (mean, mean, mean)
    return Image.blend(Image.new(image.mode, image.size, level), image, factor)


def _channels_first(image: Image.Image) -> NDArray[np.uint8]:
    """`[3, H, W]`, or `[H, W]` of a gray image, which numpy repeats along the channels where it is written."""
    pixels = np.frombuffer(image.tobytes(), np.uint8)
    if image.mode == "L":
        return pixels.reshape(image.height, image.width)
    return pixels.reshape(image.height, image.width, 3).transpose(2, 0, 1)
