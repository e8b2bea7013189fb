"""Bicubic resizing of crops as PIL does it, with antialiasing, on bytes and into existing memory.

PyTorch's kernel for 8-bit channels-last images uses 16-bit integer weights, as Pillow-SIMD does, and stays within a
level of PIL. Its variant that writes into a given tensor is not public: it is used only after a check, once per
process, that it returns the same bits as the public function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_kernels: Any = torch._C._nn
Resize = Callable[[Tensor, Tensor], None]
"""Resize the first tensor into the second; both uint8 `[1, 3, H, W]` with the channels last in memory."""


class Resizer:
    """Resizes crops of images; keeps its temporary memory, so use one object per thread."""

    def __init__(self) -> None:
        self._pixels = np.empty(0, np.uint8)
        self._tensor = torch.from_numpy(self._pixels)
        self._resize = fastest_resize()

    def __call__(self, crop: NDArray[np.uint8], out: Tensor) -> None:
        """Resize a crop; the pixels around it in the image have no influence.

        Args:
            crop: uint8 `[H, W]` or `[H, W, 3]`, whose rows are contiguous.
            out: uint8 `[1, 3, S, S]` over contiguous `[S, S, 3]` (`channels_first`).
        """
        height, width = crop.shape[:2]
        length = height * width * 3
        if length > self._pixels.size:
            self._pixels = np.empty(length, np.uint8)
            self._tensor = torch.from_numpy(self._pixels)
        pixels = self._pixels[:length].reshape(height, width, 3)
        if crop.ndim == 3:
            np.copyto(pixels, crop)
        else:  # PyTorch would expand one channel to four
            cv2.cvtColor(crop, cv2.COLOR_GRAY2RGB, dst=pixels)
        self._resize(self._tensor.as_strided((1, 3, height, width), (length, 1, width * 3, 3)), out)


def channels_first(image: NDArray[np.uint8]) -> Tensor:
    """The memory of `image`, `[S, S, 3]`, as a tensor `[1, 3, S, S]`."""
    return torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)


@cache
def fastest_resize() -> Resize:
    """The kernel that writes in place, if this PyTorch has it and it returns the bits of the public function."""
    return _in_place if _agrees(_in_place) else _public


def _in_place(source: Tensor, out: Tensor) -> None:
    _kernels._upsample_bicubic2d_aa(source, out.shape[2:], False, None, None, out=out)


def _public(source: Tensor, out: Tensor) -> None:
    out.copy_(F.interpolate(source, size=(out.shape[2], out.shape[3]), mode="bicubic", antialias=True))


def _agrees(resize: Resize) -> bool:
    """Whether `resize` returns the public function's bits for a smaller, a larger and a wider image."""
    levels = np.arange(3 * 41 * 29, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(24)
    image = levels.astype(np.uint8).reshape(41, 29, 3)
    for height, width in ((16, 16), (64, 64), (20, 40)):
        resized, expected = (np.zeros((height, width, 3), np.uint8) for _ in range(2))
        _public(channels_first(image), channels_first(expected))
        try:
            resize(channels_first(image), channels_first(resized))
        except (
            AttributeError,
            RuntimeError,
            TypeError,
        ):  # missing, or with another signature, in this version of PyTorch
            return False
        if not np.array_equal(resized, expected):
            return False
    return True
