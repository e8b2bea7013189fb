"""Turns the hue of images of bytes; large ones without HSV, which takes twice as long and rounds twice.

On the hexagon of hues, a channel is at the largest level for two of the six sectors, at the smallest for two, and
rises or falls on a straight line between (Smith, "Color gamut transform pairs", SIGGRAPH 1978). Turning the hue by
less than two sectors thus moves every channel by an amount that differences, minima and maxima of the three give,
and these are fast on bytes.

Let the hue turn from channel X towards channel Y (red to green to blue to red) by D, in levels: the turn in sectors,
at most one, times the range of the three channels, which is from LOW to HIGH. Then

- X rises by max(0, LOW + D - Y), up to HIGH at most: nothing, unless the hue lies before X, where the third is HIGH;
- X falls by max(0, Y - (HIGH - D)), down to LOW at most: nothing, if the hue lies there.

These are twenty calls of OpenCV and numpy. Small images, where the calls themselves take the time, go through HSV.
"""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

SECTORS = 6
"""Of 60 degrees."""
HSV_LEVELS = 256
"""Of hue, in OpenCV's full range of a byte."""
SMALL = 64
"""Pixels; smaller images go through HSV."""


class HueTurn(Protocol):
    """Turns the hue of images of one size; keeps its temporary memory, so use one object per thread."""

    def __call__(self, image: NDArray[np.uint8], turn: float) -> None:
        """Turn the hue of `image`, uint8 `[S, S, 3]`, in place.

        Args:
            image: RGB; gray pixels stay as they are.
            turn: share of the full circle; any number.
        """
        ...


def hue_turn(size: int) -> HueTurn:
    """The faster implementation for images of `size` x `size` pixels."""
    return HsvTurn(size) if size < SMALL else PlanesTurn(size)


class HsvTurn:
    """Converts to HSV, where hue has 256 levels, and back.

    Args:
        size: side of the images, in pixels.
    """

    def __init__(self, size: int) -> None:
        self._hsv, self._move = (np.empty((size, size, 3), np.uint8) for _ in range(2))
        self._hue = np.zeros((size, size, 3), np.uint8)
        self._hue[..., 0] = 1

    def __call__(self, image: NDArray[np.uint8], turn: float) -> None:
        """See `HueTurn`; the turn is rounded to 1/256 of the circle."""
        cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL, dst=self._hsv)
        # numpy adds modulo 256; to all bytes, since every third alone would take longer than both conversions.
        np.multiply(self._hue, np.uint8(round(turn * HSV_LEVELS) % HSV_LEVELS), out=self._move)
        np.add(self._hsv, self._move, out=self._hsv)
        cv2.cvtColor(self._hsv, cv2.COLOR_HSV2RGB_FULL, dst=image)


class PlanesTurn:
    """Uses differences, minima and maxima of the three channels.

    Args:
        size: side of the images, in pixels.
    """

    def __init__(self, size: int) -> None:
        self._levels = np.empty((5, size, size), np.uint8)
        """Blue, red, green, blue, red, so that the next and the previous of all three channels lie together."""
        self._low, self._high, self._move, self._edge = (np.empty((size, size), np.uint8) for _ in range(4))
        self._rise, self._fall, self._room = (np.empty((3, size, size), np.uint8) for _ in range(3))

    def __call__(self, image: NDArray[np.uint8], turn: float) -> None:
        """See `HueTurn`; exact to one level."""
        sectors = (turn * SECTORS + SECTORS / 2) % SECTORS - SECTORS / 2
        # A third of the circle, two sectors, is the channels exchanged.
        exchanged = round(sectors / 2)
        self._split(image, exchanged)
        rest = sectors - 2 * exchanged
        if rest:
            self._turn(rest)
        cv2.merge(list(self._levels[1:4]), dst=image)

    def _split(self, image: NDArray[np.uint8], exchanged: int) -> None:
        planes = list(self._levels[1:4])
        cv2.split(image, planes[exchanged:] + planes[:exchanged])

    def _turn(self, sectors: float) -> None:
        """Turn the image in the planes by -1 to 1 sectors."""
        levels, low, high, move, edge = self._levels, self._low, self._high, self._move, self._edge
        rise, fall, room = self._rise, self._fall, self._room
        levels[0], levels[4] = levels[3], levels[1]
        here, there = levels[1:4], levels[2:5] if sectors > 0 else levels[0:3]
        np.minimum(np.minimum(levels[1], levels[2], out=low), levels[3], out=low)
        np.maximum(np.maximum(levels[1], levels[2], out=high), levels[3], out=high)
        cv2.convertScaleAbs(np.subtract(high, low, out=move), dst=move, alpha=abs(sectors))
        np.add(low, move, out=edge)
        np.subtract(np.maximum(edge, there, out=rise), there, out=rise)
        np.subtract(high, move, out=edge)
        np.subtract(np.maximum(there, edge, out=fall), edge, out=fall)
        np.minimum(fall, np.subtract(here, low, out=room), out=fall)
        cv2.add(_flat(here), _flat(rise), dst=_flat(rise))  # saturates at 255
        np.minimum(rise, high, out=rise)
        np.subtract(rise, fall, out=here)


def _flat(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[3 * S, S]`: OpenCV would take the last axis of three for channels."""
    return planes.reshape(-1, planes.shape[-1])
