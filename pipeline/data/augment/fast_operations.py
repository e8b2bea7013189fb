"""The operations on the pixels of one view, fast, on bytes, with OpenCV and PyTorch (`augment_backend: fast`).

Order, factors and rounding to whole levels are those of `pil_operations.py`; copies are avoided and memory is reused.
The results are within about a level of PIL's (docs/results/views.md has the table).

A gray image is processed as three equal channels, without the operations that do not change gray: OpenCV's filters
round a half up or down depending on a pixel's memory address, so one channel might end up a level away from three.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.data.augment.blurring import blur
from pipeline.data.augment.hue import hue_turn
from pipeline.data.augment.pil_operations import (
    BRIGHTNESS,
    CONTRAST,
    HUE,
    LUMA,
    SATURATION,
    WHITE,
    Jitter,
    Lap,
    ViewParameters,
    add_noise,
)
from pipeline.data.augment.resizing import Resizer, channels_first

Bytes = NDArray[np.uint8]

SMALL = 64
"""Side in pixels below which copying a view costs less than making a tensor over its memory."""
CUT = -0.498
"""Added before rounding to the nearest level, so that it truncates as PIL does. Not -0.5: whole levels must stay."""


class Scratch:
    """Temporary memory for views of one size.

    Args:
        size: side in pixels.
    """

    def __init__(self, size: int) -> None:
        self.color, self.other_color = (np.empty((size, size, 3), np.uint8) for _ in range(2))
        self.gray, self.other_gray = (np.empty((size, size), np.uint8) for _ in range(2))
        self.resized = channels_first(self.color)
        self.turn_hue = hue_turn(size)


class FastOperations:
    """Makes views; keeps its temporary memory, so use one object per thread."""

    def __init__(self) -> None:
        self._resize = Resizer()
        self._scratch: dict[int, Scratch] = {}

    def __call__(
        self,
        pixels: Bytes,
        parameters: ViewParameters,
        noise: NDArray[np.float64] | None,
        out: Bytes,
        lap: Lap,
    ) -> None:
        """Make one view.

        Args:
            pixels: of the image, uint8 `[H, W]` or `[H, W, 3]` (RGB), rows contiguous.
            parameters: of the view.
            noise: `[S, S, 1]` or `[S, S, 3]`, in units of the range from black to white.
            out: uint8 `[S, S, 3]`, any strides.
            lap: called with the name of each part when it is done.
        """
        p, size = parameters, len(out)
        scratch = self._scratch.get(size) or self._scratch.setdefault(size, Scratch(size))
        image: Bytes = scratch.color
        spare: Bytes = scratch.other_color
        resized = scratch.resized
        if size >= SMALL and out.flags.c_contiguous:  # work in the output itself where possible
            image, resized = out, channels_first(out)
        self._resize(pixels[p.top : p.top + p.height, p.left : p.left + p.width], resized)
        lap("crop")
        if p.jitter:
            _jitter(image, p.jitter, scratch, colored=pixels.ndim == 3)
        if p.gray:
            cv2.cvtColor(image, cv2.COLOR_RGB2GRAY, dst=scratch.gray)
            image, spare = scratch.gray, scratch.other_gray
        lap("jitter")
        if p.blur:
            blur(image, p.blur, spare)
            image, spare = spare, image
            lap("blur")
        if p.solarize:  # min(x, 255 - x): inverts exactly the pixels from 128 on
            cv2.min(image, cv2.bitwise_not(image, dst=spare), dst=image)
        if p.flip:
            cv2.flip(image, 1, dst=image)
        if noise is not None:
            image = add_noise(image if image.ndim == 3 else image[..., None], noise)
        elif image.ndim == 2:
            cv2.cvtColor(image, cv2.COLOR_GRAY2RGB, dst=scratch.color)
            image = scratch.color
        if image is not out:
            np.copyto(out, image)
        lap("other")


def _jitter(image: Bytes, jitter: Jitter, scratch: Scratch, colored: bool) -> None:
    """Jitter in place; factors that change nothing are skipped, as in `pil_operations.py`."""
    for operation in jitter.order:
        if operation == BRIGHTNESS and jitter.brightness != 1.0:
            _scale(image, jitter.brightness, 0.0)
        elif operation == CONTRAST and jitter.contrast != 1.0:
            _scale(image, jitter.contrast, (1.0 - jitter.contrast) * _mean_level(image))
        elif operation == SATURATION and colored and jitter.saturation != 1.0:
            cv2.cvtColor(image, cv2.COLOR_RGB2GRAY, dst=scratch.gray)
            cv2.cvtColor(scratch.gray, cv2.COLOR_GRAY2RGB, dst=scratch.other_color)
            cv2.addWeighted(image, jitter.saturation, scratch.other_color, 1.0 - jitter.saturation, CUT, dst=image)
        elif operation == HUE and colored and jitter.hue != 0.0:
            # PIL quantises hue to 1/255 of the circle and truncates, by half a step on average.
            scratch.turn_hue(image, (int(jitter.hue * WHITE) - 0.5) / WHITE)


def _scale(image: Bytes, factor: float, offset: float) -> None:
    """factor * image + offset, in place."""
    if offset >= 0.0:  # faster, but takes the absolute value of negative results
        cv2.convertScaleAbs(image, dst=image, alpha=factor, beta=offset + CUT)
    else:
        cv2.addWeighted(image, factor, image, 0.0, offset + CUT, dst=image)


def _mean_level(image: Bytes) -> int:
    """Mean gray level, rounded."""
    red, green, blue, _ = cv2.mean(image)
    return int(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue + 0.5)
