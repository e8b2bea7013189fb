"""The operations on the pixels of one view, given its parameters, with PIL (`augment_backend: pil`).

The operations are those of `Transform` in https://github.com/facebookresearch/barlowtwins (main.py),
in its order: random resized crop (bicubic), flip, colour jitter, grayscale, Gaussian blur,
solarisation; then noise on the pixels, which the released code does not have.

A gray image stays in one channel until the end. That is exact: saturation, hue and grayscale do not
change gray pixels, and all other operations treat the channels alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
WHITE = 255
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray level (ITU-R BT.601)."""
Lap = Callable[[str], None]
"""Called with the name of each part of the work (`crop`, `jitter`, `blur`, `other`) when it is done."""


@dataclass(frozen=True)
class Jitter:
    """Colour factors (1 changes nothing; hue: 0) and the order in which they are applied."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[int, ...]


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of standard deviation `sigma`, in pixels."""

    sigma: float
    kernel: float | None
    """Side of the sampled kernel as a share of the side of the view; None for PIL's blur, which has no kernel."""


@dataclass(frozen=True)
class ViewParameters:
    """All parameters of one view; the crop is in pixels, counted from the top left corner."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    jitter: Jitter | None = None
    gray: bool = False
    blur: Blur | None = None
    solarize: bool = False
    noise_std: float = 0.0
    """In units of the range from black to white; 0 adds none."""


class PilOperations:
    """Makes views with PIL, bit-identical to those of the released code."""

    def __call__(
        self,
        pixels: NDArray[np.uint8],
        parameters: ViewParameters,
        noise: NDArray[np.float64] | None,
        out: NDArray[np.uint8],
        lap: Lap,
    ) -> None:
        """Make one view.

        Args:
            pixels: of the image, uint8 `[H, W]` or `[H, W, 3]` (RGB).
            parameters: of the view.
            noise: `[S, S, 1]` or `[S, S, 3]`, in units of the range from black to white.
            out: uint8 `[S, S, 3]`, any strides.
            lap: called with the name of each part when it is done.
        """
        view = np.asarray(apply(Image.fromarray(pixels), parameters, len(out), lap))
        if view.ndim == 2:
            view = view[:, :, np.newaxis]
        np.copyto(out, view if noise is None else add_noise(view, noise))
        lap("other")


def apply(image: Image.Image, parameters: ViewParameters, size: int, lap: Lap = lambda _: None) -> Image.Image:
    """Make one view of `image` (mode L or RGB) without its noise; `lap` is called after each part.

    Returns:
        `size` x `size` pixels, mode L if the view is gray, else RGB.
    """
    p = parameters
    # The crop comes first and alone: resizing with a box would let pixels outside of the crop in at its border.
    image = image.crop((p.left, p.top, p.left + p.width, p.top + p.height))
    image = image.resize((size, size), Image.Resampling.BICUBIC)
    if p.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    lap("crop")
    if p.jitter:
        image = _jitter(image, p.jitter)
    if p.gray and image.mode != "L":
        image = image.convert("L")
    lap("jitter")
    if p.blur:
        image = blurred(image, p.blur)
        lap("blur")
    if p.solarize:  # min(x, 255 - x): inverts exactly the pixels from 128 on
        image = ImageChops.darker(image, ImageChops.invert(image))
    return image


def add_noise(pixels: NDArray[np.uint8], noise: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Add noise to `pixels`, round to whole levels and clip at black and white.

    Args:
        pixels: of a view, `[H, W, 3]`, or `[H, W, 1]` if it is gray.
        noise: `[H, W, 3]` or `[H, W, 1]`, in units of the range from black to white.

    Returns:
        The wider of the two shapes: a gray view with a different noise per channel has three channels.
    """
    noisy: NDArray[np.float64] = np.clip(np.rint(pixels + WHITE * noise), 0, WHITE)
    return noisy.astype(np.uint8)


def kernel_side(share: float, size: int) -> int:
    """Side of the blur kernel in pixels: the odd number nearest to `share * size` (the larger of two), at least 3.

    With the usual share of 0.1, 23 pixels at 224 and 3 at 32, as SimCLR and the BYOL reproduction have it.
    """
    # Rounded first, or 0.58 * 100 would be 57.99999999999999 and go down.
    return max(3, 2 * int(round(share * size, 6) / 2) + 1)


def _jitter(image: Image.Image, jitter: Jitter) -> Image.Image:
    """torchvision's `ColorJitter` for PIL images; factors that change nothing are skipped, as there."""
    colored = image.mode != "L"
    for operation in jitter.order:
        if operation == BRIGHTNESS and jitter.brightness != 1.0:
            image = Image.blend(Image.new(image.mode, image.size, 0), image, jitter.brightness)
        elif operation == CONTRAST and jitter.contrast != 1.0:
            image = _contrast(image, jitter.contrast)
        elif operation == SATURATION and colored and jitter.saturation != 1.0:
            image = Image.blend(image.convert("L").convert("RGB"), image, jitter.saturation)
        elif operation == HUE and colored and jitter.hue != 0.0:
            # The way to HSV and back rounds, so a hue of 0 must skip it.
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


def blurred(image: Image.Image, blur: Blur) -> Image.Image:
    """PIL's blur, or a convolution with a sampled Gaussian of the kernel's side and a mirrored border (101)."""
    if blur.kernel is None:
        return image.filter(ImageFilter.GaussianBlur(blur.sigma))
    side = kernel_side(blur.kernel, image.width)
    # In floats: OpenCV rounds the kernel for 8-bit images to 1/256, which causes errors of up to three levels.
    pixels = np.asarray(image, np.float32)
    blurred = cv2.GaussianBlur(pixels, (side, side), blur.sigma, borderType=cv2.BORDER_REFLECT_101)
    return Image.fromarray(np.rint(blurred).clip(0, WHITE).astype(np.uint8))
